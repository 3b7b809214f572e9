//! Evidence and its verification, in the words of RFC 9334 (RATS).
//!
//! ```text
//! attester   Binding ─SHA-512─► user_data ┐
//!                    nonce, public_key    ├─► Attester::attest ─► Evidence (bytes, unverified)
//!                                         ┘
//! verifier   Evidence ─► Verifier::verify(Expected, now) ─► Claims (only ever made there)
//! ```
//!
//! # Layout
//! - `evidence`, `digest`, `pcr`, `binding`: the nouns both sides exchange.
//! - `attester`, `nsm`: who makes evidence; the Nitro Secure Module is the only shipped platform.
//! - `bundle`, `evidence_policy`, `inspection`: for who looks at evidence later: all of it in a file, what is asked of it, and what
//!   it says of itself.
//! - `runtime_measurement`: what the enclave says of itself in a register of its own.
//! - `verifier`: the numbered steps, and the audit of evidence that was made for others. `document` and `cbor` do step 1,
//!   `chain`, `certificate` and `anchor` step 2, `reference_values` and `accepted_image` step 7.
#![warn(missing_docs)]

mod accepted_image;
mod anchor;
mod attester;
mod binding;
mod bundle;
mod cbor;
mod certificate;
mod chain;
mod digest;
mod document;
mod error;
mod evidence;
mod evidence_policy;
mod inspection;
mod nsm;
mod pcr;
mod reference_values;
mod runtime_measurement;
mod step;
mod text;
mod verifier;

pub use accepted_image::AcceptedImage;
pub use anchor::{AnchorError, TrustAnchor};
pub use attester::{AttestError, AttestationRequest, Attester};
pub use binding::{Binding, ModelIdentity, ParseBindingError, Purpose, SessionSubject, Subject};
pub use bundle::{
    BUNDLE_FORMAT, BundleAudit, BundleError, BundleReport, EvidenceBundle, MAX_BUNDLE,
    ManifestError,
};
pub use chain::{ChainCache, RevocationLists, RevocationListsError};
pub use digest::{BootId, ParseHexError, Sha256Digest, Sha384Digest};
pub use document::{DIGEST, Document};
pub use error::{ChainError, Error, FreshnessError, StructureError};
pub use evidence::{Evidence, Nonce, ParseNonceError};
pub use evidence_policy::{AcceptedModel, EvidencePolicy, PolicyError};
pub use inspection::{CertificateContent, CertificateView, UnverifiedView};
pub use nsm::NsmAttester;
pub use pcr::{Pcr, Pcrs};
pub use reference_values::{ReferenceValues, ReferenceValuesError};
pub use runtime_measurement::{RUNTIME_PCR, runtime_measurement};
pub use step::Step;
pub use text::{Bytes, rfc3339};
pub use verifier::{Appraisal, Audit, CLOCK_LEEWAY, Claims, Expected, Verdict, Verifier};
