use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::{FORMAT, SigningKey};

/// Files in memory.
struct Memory(BTreeMap<&'static str, Vec<u8>>);

impl Source for Memory {
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.get(name).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn read_at(&self, name: &str, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(self.0.get(name).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

/// Opens a package whose publisher signed this manifest, whatever it says.
fn open_signed(manifest: &str) -> Result<Package<Memory>, Error> {
    let signer = SigningKey::generate().unwrap();
    let envelope = Envelope::sign(manifest.as_bytes(), &signer).unwrap();
    let source = Memory(BTreeMap::from([
        (SIGNATURE, envelope.to_bytes().unwrap()),
        (MANIFEST, manifest.as_bytes().to_vec()),
        ("a.json.enc", vec![0; 56]),
    ]));
    Package::open(source, &[signer.public().unwrap()], "demo", 1)
}

fn manifest(format: &str, path: &str) -> String {
    let digest = "0".repeat(64);
    serde_json::json!({
        "format": format, "name": "demo", "epoch": 1, "key_id": "models/demo/epoch-1", "key_check": digest,
        "created": "2026-11-20T12:00:00Z", "model_sig_sha256": digest, "bom_sha256": digest,
        "files": [{"path": path, "size": 0, "sha256": digest, "sealed_size": 56, "segments_sha256": digest}],
    })
    .to_string()
}

#[test]
fn a_true_signature_does_not_carry_an_unknown_format_or_an_unsafe_manifest() {
    open_signed(&manifest(FORMAT, "a.json")).unwrap();
    let later = open_signed(&manifest("cloister-sealed-model/2", "a.json"));
    assert!(
        matches!(later, Err(Error::UnknownFormat { found, .. }) if found == "cloister-sealed-model/2")
    );
    for path in ["../a.json", "/a.json", "a/../../b.json", ".a.json"] {
        let outcome = open_signed(&manifest(FORMAT, path));
        assert!(matches!(outcome, Err(Error::Manifest { .. })), "{path}");
    }
    assert!(matches!(
        open_signed("not json"),
        Err(Error::Manifest { .. })
    ));
}
