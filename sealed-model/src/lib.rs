//! The encrypted, signed model package: format, writer, reader.
//!
//! ```text
//! seal:   directory ─► accept (kinds, headers) ─► encrypt per file ─► manifest.json ─► manifest.sig ─► rename into place
//! open:   manifest.sig ─► publisher's signature ─► manifest.json ─► limits, name, epoch ─► Package
//! unlock: Package + DataKey ─► UnlockedPackage ─► read_at: whole segments, verified, straight into the caller's buffer
//! ```
//!
//! Everything behind [`Source`] is hostile: [`Package::open`] believes no byte before the signature, and
//! [`UnlockedPackage`] gives out no plaintext that its segment's tag did not vouch for. `docs/sealed-model.md` has the bytes.

mod accept;
mod buffer;
mod cache;
mod digest;
mod envelope;
mod error;
mod key;
mod layout;
mod manifest;
mod name;
mod package;
mod pem;
mod pieces;
mod publisher;
pub mod safetensors;
mod seal;
mod source;
mod stream;
mod unlocked;
mod unseal;
mod workers;

pub use accept::Rejection;
pub use digest::Sha256Digest;
pub use error::{Error, ErrorKind};
pub use key::DataKey;
pub use manifest::{FORMAT, FileEntry, MAX_FILES, MAX_MANIFEST_BYTES, Manifest};
pub use name::{associated_data, key_id, sealed_name};
pub use package::{Inspection, MANIFEST, Package, SIGNATURE, SignatureVerdict, inspect};
pub use publisher::{PublisherKey, SigningKey};
pub use seal::{SealOptions, SealProgress, seal};
pub use source::{DirSource, Source};
pub use unlocked::UnlockedPackage;
pub use unseal::unseal;
