//! SPIFFE X.509-SVID rules and TLS 1.3-only rustls configurations.
