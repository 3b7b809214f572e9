//! What the enclave extends into a register of its own while it boots: the configuration and models that it serves.
//!
//! AWS leaves registers from 16 on to the application. So what is served can be read from evidence, and required by whoever opens
//! a session, without being part of what the image measures. Evidence for an SVID or for a model key is older than this register.

use aws_lc_rs::digest::{Context, SHA384};

use crate::digest::{Sha256Digest, Sha384Digest};

/// The register.
pub const RUNTIME_PCR: u8 = 16;

/// With its final NUL. Another version of this value gets another label.
const LABEL: &[u8] = b"cloister runtime measurement v1\0";

/// The value that is extended, once, before the register is locked: SHA-384 over the label, the SHA-256 of the configuration file, and
/// the SHA-256 of each model's manifest file in the order of the configuration. All parts have fixed lengths.
///
/// The register then holds [`Pcr::ZERO.extend`](crate::Pcr::extend) of its bytes.
pub fn runtime_measurement(
    config: Sha256Digest,
    manifests: impl IntoIterator<Item = Sha256Digest>,
) -> Sha384Digest {
    let mut context = Context::new(&SHA384);
    context.update(LABEL);
    context.update(config.as_bytes());
    for manifest in manifests {
        context.update(manifest.as_bytes());
    }
    let mut digest = [0; Sha384Digest::LENGTH];
    digest.copy_from_slice(context.finish().as_ref());
    digest.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::Pcr;

    fn digest(byte: u8) -> Sha256Digest {
        Sha256Digest::from_bytes([byte; 32])
    }

    #[test]
    fn the_value_is_the_published_one() {
        // python3: hashlib.sha384(b"cloister runtime measurement v1\0" + b"\1" * 32 + b"\2" * 32 + b"\3" * 32), and
        // hashlib.sha384(bytes(48) + that)
        let measurement = runtime_measurement(digest(1), [digest(2), digest(3)]);
        assert_eq!(
            measurement.to_string(),
            "6fe03daa6599f8ac1a76eaac8edda6b83f4d58eb4b55055befa840dd587d1a66737018bc11b4af1a73f082e6f591568b"
        );
        assert_eq!(
            Pcr::ZERO.extend(measurement.as_bytes()).to_string(),
            "406dfc66ba157717c0db51717fc9eddf8627022d79990004229eefeaad62bb5144ff51e29ad049d866adc7c6b95b7812"
        );
        assert_eq!(
            runtime_measurement(digest(1), []).to_string(),
            "92b9221a04e861f78a48b02550b4c9aeda912284794404e0f075714087cc0bc3f695eb9be18ef2b09b18e75c98cb1e43"
        );
    }

    #[test]
    fn it_depends_on_the_configuration_and_on_each_model_in_order() {
        let base = runtime_measurement(digest(1), [digest(2), digest(3)]);
        for other in [
            runtime_measurement(digest(9), [digest(2), digest(3)]),
            runtime_measurement(digest(1), [digest(3), digest(2)]),
            runtime_measurement(digest(1), [digest(2)]),
            runtime_measurement(digest(2), [digest(1), digest(3)]),
        ] {
            assert_ne!(base, other);
        }
    }
}
