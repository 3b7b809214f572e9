//! Support for the whole-service tests.
