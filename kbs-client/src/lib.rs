//! One data key and one SVID, from a key broker, by proving what we are.
