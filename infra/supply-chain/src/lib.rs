//! SBOM, provenance, signatures and the published list of measurements of an enclave image.
//!
//! ```text
//! describe:  Build + CrateGraph ─► sbom() ─► CycloneDX 1.6        Build ─► provenance() ─► in-toto Statement v1, SLSA v1
//! sign:      file ─► Blob ─► Signature                            statement ─► Envelope (DSSE)      both ─► Bundle
//! believe:   Blob + Signature + keys ─► ()                        Envelope + keys ─► Statement ─► names(image)?
//! publish:   MeasurementLog: hash-chained, signed entries ─► the images that are published and not revoked
//! ```
//!
//! Plain data in, bytes out: nothing here asks the machine, the clock or the network. What was not verified has another
//! type than what was. `docs/supply-chain.md` has the formats and what each artefact proves.

mod blob;
mod build;
mod bundle;
mod canonical;
mod crates;
mod dsse;
mod error;
mod measurements;
mod provenance;
mod purl;
mod sbom;
mod statement;

pub use blob::{Blob, BlobReader, Signature};
pub use build::{Artifact, Build, ImageFile, Kernel, SourceTree, Tool};
pub use bundle::Bundle;
pub use crates::CrateGraph;
pub use dsse::{Envelope, MAX_ENVELOPE};
pub use error::{Error, ErrorKind};
pub use measurements::{
    Event, Head, LogFile, MAX_LOG, MeasurementLog, Pin, Publication, PublishedImage, Register,
    Registers, Revocation, Timestamp,
};
pub use provenance::{BUILD_TYPE, Provenance, SLSA_PROVENANCE, provenance};
pub use sbom::sbom;
pub use sealed_model::{PublisherKey, Sha256Digest, SigningKey};
pub use statement::{CYCLONEDX_BOM, Statement, bom_sha256, sbom_statement, unsigned_statement};
