//! Certificate revocation lists (RFC 5280 section 5) that the relying party has and trusts to be current.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::certificate::{Checked, ECDSA_WITH_SHA384, Validity, system_time};
use crate::error::ChainError;
use crate::verifier::CLOCK_LEEWAY;

/// Several files may be given; lists of this chain's certificates, which live for days, stay far below.
const MAX_FILE: usize = 4 * 1024 * 1024;

/// One for each authority of a few regions.
const MAX_LISTS: usize = 64;

/// Lists of revoked certificates, each of one issuer.
///
/// Every list of an issuer counts for every certificate of that issuer, whatever part of them the list is for: numbers are
/// unique per issuer. Such a list has to be signed by that issuer, which may sign lists (`cRLSign`), and to be current
/// (`thisUpdate`, `nextUpdate`), or the chain is refused: who gives a list wants it to count. A certificate whose issuer has no
/// list is judged without. Delta and indirect lists are refused when read.
#[derive(Clone)]
pub struct RevocationLists(Vec<Arc<List>>);

struct List {
    issuer: Vec<u8>,
    /// What `signature` is over.
    signed: Vec<u8>,
    /// ECDSA in DER.
    signature: Vec<u8>,
    current: Validity,
    serials: HashSet<Vec<u8>>,
}

/// Bytes that are not revocation lists, or not such as can be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationListsError {
    /// Neither one DER list nor a PEM file of lists.
    #[error("expected one revocation list in DER, or PEM with one or more")]
    Format,
    /// Larger than any list of this chain can be.
    #[error("more than {MAX_FILE} bytes or {MAX_LISTS} lists")]
    Size,
    /// A list that this verifier cannot obey.
    #[error("list {position}: {problem}")]
    List {
        /// Position in the file, from 0.
        position: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl RevocationLists {
    /// Reads one list in DER, or one or more in PEM (`X509 CRL`, RFC 7468).
    ///
    /// # Errors
    /// See [`RevocationListsError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RevocationListsError> {
        if bytes.len() > MAX_FILE {
            return Err(RevocationListsError::Size);
        }
        // DER starts with a SEQUENCE; its first byte is the digit 0 in a text, and no PEM starts so.
        let found = match bytes.first() {
            Some(0x30) => vec![CertificateRevocationListDer::from(bytes.to_vec())],
            _ => CertificateRevocationListDer::pem_slice_iter(bytes)
                .collect::<Result<_, _>>()
                .map_err(|_pem| RevocationListsError::Format)?,
        };
        if found.is_empty() {
            return Err(RevocationListsError::Format);
        }
        if found.len() > MAX_LISTS {
            return Err(RevocationListsError::Size);
        }
        let read = |(position, der): (usize, &CertificateRevocationListDer<'_>)| {
            let list = List::read(der);
            list.map_err(|problem| RevocationListsError::List { position, problem })
        };
        let lists = found.iter().enumerate().map(read).map(|l| l.map(Arc::new));
        Ok(Self(lists.collect::<Result<_, _>>()?))
    }

    /// These lists and those of another file.
    ///
    /// # Errors
    /// [`RevocationListsError::Size`].
    pub fn join(mut self, other: Self) -> Result<Self, RevocationListsError> {
        self.0.extend(other.0);
        match self.0.len() {
            0..=MAX_LISTS => Ok(self),
            _ => Err(RevocationListsError::Size),
        }
    }

    /// How many lists there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// `nextUpdate` of the list that ends first: when to have newer ones.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.0.iter().map(|list| list.current.not_after).min()
    }

    /// `chain` from the root down; the root is the anchor, and whether to trust that is for its owner to say.
    pub(super) fn check<'a>(
        &self,
        chain: impl Iterator<Item = &'a Checked> + Clone,
        now: SystemTime,
    ) -> Result<(), ChainError> {
        let issued = chain.clone().skip(1).enumerate();
        for (issuer, (above, certificate)) in chain.zip(issued) {
            let position = above + 1;
            for list in self.0.iter().filter(|l| l.issuer == certificate.issuer) {
                list.check(issuer, certificate, position, now)?;
            }
        }
        Ok(())
    }
}

impl List {
    fn check(
        &self,
        issuer: &Checked,
        certificate: &Checked,
        position: usize,
        now: SystemTime,
    ) -> Result<(), ChainError> {
        let problem = |problem| ChainError::RevocationList { position, problem };
        if !issuer.signs_lists {
            return Err(problem("its issuer may not sign one"));
        }
        if UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &issuer.point)
            .verify(&self.signed, &self.signature)
            .is_err()
        {
            return Err(problem("not signed by its issuer"));
        }
        if self.current.not_before > now + CLOCK_LEEWAY || self.current.not_after <= now {
            return Err(ChainError::RevocationListTime {
                position,
                this_update: self.current.not_before,
                next_update: self.current.not_after,
                at: now,
            });
        }
        match self.serials.contains(certificate.serial.as_slice()) {
            true => Err(ChainError::Revoked { position }),
            false => Ok(()),
        }
    }

    fn read(der: &[u8]) -> Result<Self, &'static str> {
        // webpki refuses what this reader would take: other versions, no nextUpdate, delta and indirect lists, critical
        // extensions that nobody here knows. What it reads it keeps to itself.
        if webpki::BorrowedCertRevocationList::from_der(der)
            .and_then(|list| list.to_owned())
            .is_err()
        {
            return Err("not a complete, direct revocation list of version 2 with nextUpdate");
        }
        let Ok((rest, list)) = CertificateRevocationList::from_der(der) else {
            return Err("not a revocation list");
        };
        if !rest.is_empty() {
            return Err("followed by other bytes");
        }
        if list.signature_algorithm.algorithm != ECDSA_WITH_SHA384
            || list.tbs_cert_list.signature.algorithm != ECDSA_WITH_SHA384
        {
            return Err("not signed with ECDSA and SHA-384");
        }
        let next_update = list.next_update().ok_or("no nextUpdate")?;
        let current = Validity {
            not_before: system_time(list.last_update())?,
            not_after: system_time(next_update)?,
        };
        if current.not_after <= current.not_before {
            return Err("ends before it begins");
        }
        let revoked = list.iter_revoked_certificates();
        Ok(Self {
            issuer: list.issuer().as_raw().to_vec(),
            signed: list.tbs_cert_list.as_ref().to_vec(),
            signature: list.signature_value.data.to_vec(),
            current,
            serials: revoked.map(|entry| entry.raw_serial().to_vec()).collect(),
        })
    }
}

impl std::fmt::Debug for RevocationLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RevocationLists({})", self.0.len())
    }
}
