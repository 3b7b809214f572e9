use std::time::{Duration, SystemTime};

use bytes::Bytes;
use identity::issue::{Authority, new_svid_der};
use rustls_pki_types::CertificateDer;

use super::workload_api::pb::X509svid;
use super::{Entry, Error};

/// What callers are told at one time: everything, never a difference.
///
/// The private keys in it are for callers of one development run; they are not wiped when they are replaced.
pub(super) struct Snapshot {
    /// One per entry, in their order.
    pub(super) svids: Vec<X509svid>,
    /// `spiffe://<trust domain>`.
    pub(super) trust_domain_id: String,
    /// Root certificates, DER, one after another.
    pub(super) bundle: Bytes,
}

impl Snapshot {
    pub(super) fn make(
        authority: &Authority,
        entries: &[Entry],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, Error> {
        // The last certificate of an authority's chain is its root.
        let bundle = concatenated(authority.cert_chain().last());
        let mut svids = Vec::with_capacity(entries.len());
        for entry in entries {
            let (chain, key) = new_svid_der(authority, &entry.spiffe_id, ttl, now)?;
            svids.push(X509svid {
                spiffe_id: entry.spiffe_id.to_string(),
                x509_svid: concatenated(&chain),
                x509_svid_key: Bytes::copy_from_slice(&key),
                bundle: bundle.clone(),
                hint: String::new(),
            });
        }
        Ok(Self {
            svids,
            trust_domain_id: authority.trust_domain().id_string(),
            bundle,
        })
    }
}

fn concatenated<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Bytes {
    let mut der = Vec::new();
    for certificate in certificates {
        der.extend_from_slice(certificate);
    }
    der.into()
}
