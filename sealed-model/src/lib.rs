//! The encrypted, signed model package: format, writer, reader.
