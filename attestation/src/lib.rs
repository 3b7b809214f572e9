//! Evidence and its verification, in the words of RFC 9334.
