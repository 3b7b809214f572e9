//! The encrypted, signed model package: format, writer, reader.
//!
//! ```text
//! seal:   directory ─► accept (kinds, headers) ─► encrypt per file ─► model.sig, bom.cdx.json ─► manifest.json ─► manifest.sig
//! rotate: UnlockedPackage ─► encrypt per file under the next key ─► manifest.json ─► manifest.sig
//! open:   manifest.sig ─► publisher's signature ─► manifest.json ─► limits, name, epoch ─► Package
//! unlock: Package + DataKey ─► UnlockedPackage ─► read_at: whole segments, verified, straight into the caller's buffer
//! ```
//!
//! Everything behind [`Source`] is hostile: [`Package::open`] believes no byte before the signature, and
//! [`UnlockedPackage`] gives out no plaintext that its segment's tag did not vouch for. `docs/sealed-model.md` has the bytes.

mod accept;
mod bom;
mod buffer;
mod cache;
mod digest;
mod documents;
pub mod dsse;
mod encrypt;
mod envelope;
mod error;
pub use gguf;
pub mod json;
mod key;
mod layout;
mod manifest;
mod model_signing;
mod name;
mod package;
mod partial;
mod pem;
mod pieces;
mod progress;
mod publisher;
mod rotate;
pub mod safetensors;
mod seal;
mod segments;
pub mod sigstore;
mod source;
mod stream;
mod unlocked;
mod unseal;
mod workers;

pub use accept::Rejection;
pub use bom::front_matter;
pub use digest::Sha256Digest;
pub use documents::{BOM, Documents, MODEL_SIG};
pub use error::{Error, ErrorKind};
pub use key::DataKey;
pub use manifest::{FORMAT, FileEntry, MAX_FILES, MAX_MANIFEST_BYTES, Manifest};
pub use model_signing::{SignedModel, sign_model};
pub use name::{associated_data, key_id, sealed_name};
pub use package::{Inspection, MANIFEST, Package, SIGNATURE, SignatureVerdict, inspect};
pub use partial::partial_path;
pub use progress::SealProgress;
pub use publisher::{PublisherKey, SigningKey};
pub use rotate::{RotateOptions, rotate};
pub use seal::{SealOptions, seal};
pub use segments::{SEGMENTS, verify_ciphertexts};
pub use source::{DirSource, Source};
pub use unlocked::UnlockedPackage;
pub use unseal::unseal;
