//! The authorities of a simulated chain, with their keys, and the leaves they issue.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CustomExtension, IsCa, Issuer, KeyIdMethod,
    KeyPair, PKCS_ECDSA_P384_SHA384, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::error::PkiError;
use super::rank::{REGION, Rank, name};

/// Lifetime of a leaf, from the second it is issued.
pub(super) const LEAF_LIFETIME: Duration = Duration::from_secs(3 * 3600 + 3);

/// The authorities of a chain, with their keys. For one run: write none of it to disk.
pub struct SimPki {
    /// Root, regional, zonal, instance.
    authorities: [Authority; 4],
}

struct Authority {
    rank: Rank,
    certificate: Vec<u8>,
    not_after: SystemTime,
    key: KeyPair,
}

/// A leaf certificate and its key.
pub struct SimLeaf {
    /// DER.
    pub certificate: Vec<u8>,
    /// End of its validity.
    pub not_after: SystemTime,
    signer: EcdsaKeyPair,
    key: Zeroizing<Vec<u8>>,
}

/// A change to one certificate before it is signed.
type Edit<'a> = &'a dyn Fn(Rank, &mut CertificateParams);

impl SimPki {
    /// A fresh chain, valid from an hour before `now`.
    #[expect(
        clippy::expect_used,
        reason = "fixed names and fresh keys always make certificates"
    )]
    pub fn generate(now: SystemTime) -> Self {
        Self::generate_with(now, &|_, _| {}).expect("a simulated chain is made")
    }

    /// A fresh chain whose certificates `edit` may spoil before they are signed.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when an edited certificate cannot be encoded.
    pub fn generate_with(now: SystemTime, edit: Edit<'_>) -> Result<Self, PkiError> {
        let root = Authority::issue(Rank::Root, new_key()?, None, now, edit)?;
        let regional = Authority::issue(Rank::Regional, new_key()?, Some(&root), now, edit)?;
        let zonal = Authority::issue(Rank::Zonal, new_key()?, Some(&regional), now, edit)?;
        let instance = Authority::issue(Rank::Instance, new_key()?, Some(&zonal), now, edit)?;
        Ok(Self {
            authorities: [root, regional, zonal, instance],
        })
    }

    /// The trust anchor for verifiers of this run.
    pub fn root_pem(&self) -> String {
        let [root, ..] = &self.authorities;
        let body = STANDARD.encode(&root.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in body.as_bytes().chunks(64) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// The certificates above the leaf, from the root down, DER.
    pub fn cabundle(&self) -> Vec<Vec<u8>> {
        self.authorities
            .iter()
            .map(|authority| authority.certificate.clone())
            .collect()
    }

    /// A leaf for the module, valid from `now`.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn issue_leaf(&self, module_id: &str, now: SystemTime) -> Result<SimLeaf, PkiError> {
        self.issue_leaf_with(module_id, now, &|_| {})
    }

    /// A leaf that `edit` may spoil before it is signed.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn issue_leaf_with(
        &self,
        module_id: &str,
        now: SystemTime,
        edit: &dyn Fn(&mut CertificateParams),
    ) -> Result<SimLeaf, PkiError> {
        let [.., instance] = &self.authorities;
        let key = new_key()?;
        let not_after = now + LEAF_LIFETIME;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("{module_id}.{REGION}.aws"));
        params.not_before = now.into();
        params.not_after = not_after.into();
        params.is_ca = IsCa::ExplicitNoCa;
        // digitalSignature and nonRepudiation, written by hand because real leaves do not mark it critical.
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &[2, 5, 29, 15],
            vec![3, 2, 6, 0xc0],
        )];
        edit(&mut params);
        let certificate = params.signed_by(&key, &instance.issuer()?)?.der().to_vec();
        match EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der()) {
            Ok(signer) => Ok(SimLeaf {
                certificate,
                not_after,
                signer,
                key: Zeroizing::new(key.serialize_der()),
            }),
            Err(_) => Err(PkiError::Key),
        }
    }

    /// Issues again, under the same names and keys, what would end before a leaf issued now.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn renew(&mut self, now: SystemTime) -> Result<(), PkiError> {
        let [root, below @ ..] = &mut self.authorities;
        let mut above = &*root;
        for authority in below {
            if authority.not_after < now + LEAF_LIFETIME {
                authority.renew(above, now)?;
            }
            above = authority;
        }
        Ok(())
    }

    /// A revocation list (RFC 5280 section 5), DER, that the authority signs whether or not it may.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when the list cannot be encoded.
    pub fn revoke(
        &self,
        rank: Rank,
        list: CertificateRevocationListParams,
    ) -> Result<Vec<u8>, PkiError> {
        let Some(authority) = self.authorities.iter().find(|a| a.rank == rank) else {
            return Err(PkiError::Key);
        };
        // Without key usages, or rcgen refuses an issuer that may not sign lists.
        let mut params = rank.params(authority.not_after);
        params.key_usages.clear();
        let issuer = Issuer::new(params, &authority.key);
        Ok(list.signed_by(&issuer)?.der().to_vec())
    }

    /// Certificates and keys, for a child's standard input.
    pub fn to_json(&self) -> Zeroizing<String> {
        // Base64 needs no escapes, and writing the text by hand leaves no second copy of the keys behind.
        let members: Vec<_> = self
            .authorities
            .iter()
            .map(|authority| {
                let certificate = STANDARD.encode(&authority.certificate);
                let key = Zeroizing::new(STANDARD.encode(authority.key.serialized_der()));
                Zeroizing::new(format!(
                    r#"{{"certificate":"{certificate}","key":"{}"}}"#,
                    key.as_str()
                ))
            })
            .collect();
        let length = members.iter().map(|member| member.len() + 1).sum::<usize>();
        let mut json = Zeroizing::new(String::with_capacity(length + 1));
        for member in &members {
            let before = if json.is_empty() { '[' } else { ',' };
            json.push(before);
            json.push_str(member);
        }
        json.push(']');
        json
    }

    /// Reads what [`SimPki::to_json`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Json`], without quoting the text.
    pub fn from_json(json: &str) -> Result<Self, PkiError> {
        let Ok(written) = serde_json::from_str::<[Written<'_>; 4]>(json) else {
            return Err(PkiError::Json("expected four certificates with their keys"));
        };
        let [root, regional, zonal, instance] = written;
        Ok(Self {
            authorities: [
                Authority::read(Rank::Root, &root)?,
                Authority::read(Rank::Regional, &regional)?,
                Authority::read(Rank::Zonal, &zonal)?,
                Authority::read(Rank::Instance, &instance)?,
            ],
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    // Borrowed: base64 has no escapes, so no copy of the key is made.
    certificate: &'a str,
    key: &'a str,
}

impl SimLeaf {
    /// PKCS#8 in PEM, for an emulated module that signs in another process.
    pub fn key_pem(&self) -> Zeroizing<String> {
        identity::pem::encode_private_key(&self.key)
    }

    /// ES384 (RFC 9053): raw r || s, 96 bytes.
    ///
    /// # Errors
    /// [`PkiError::Key`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        match self.signer.sign(&SystemRandom::new(), message) {
            Ok(signature) => Ok(signature.as_ref().to_vec()),
            Err(_) => Err(PkiError::Key),
        }
    }
}

impl Authority {
    fn issue(
        rank: Rank,
        key: KeyPair,
        above: Option<&Self>,
        now: SystemTime,
        edit: Edit<'_>,
    ) -> Result<Self, PkiError> {
        let mut params = rank.params(now);
        edit(rank, &mut params);
        let not_after = params.not_after.into();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer()?)?,
            None => params.self_signed(&key)?,
        };
        Ok(Self {
            rank,
            certificate: certificate.der().to_vec(),
            not_after,
            key,
        })
    }

    fn renew(&mut self, above: &Self, now: SystemTime) -> Result<(), PkiError> {
        let params = self.rank.params(now);
        self.not_after = params.not_after.into();
        self.certificate = params
            .signed_by(&self.key, &above.issuer()?)?
            .der()
            .to_vec();
        Ok(())
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, PkiError> {
        let certificate = CertificateDer::from(self.certificate.as_slice());
        Ok(Issuer::from_ca_cert_der(&certificate, &self.key)?)
    }

    fn read(rank: Rank, written: &Written<'_>) -> Result<Self, PkiError> {
        let Ok(certificate) = STANDARD.decode(written.certificate) else {
            return Err(PkiError::Json("a certificate is not base64"));
        };
        let Ok(key) = STANDARD.decode(written.key).map(Zeroizing::new) else {
            return Err(PkiError::Json("a key is not base64"));
        };
        let key = PrivatePkcs8KeyDer::from(key.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P384_SHA384)?;
        // The end of its validity is not read back: it only decides when to renew, and renewing early does no harm.
        Ok(Self {
            rank,
            certificate,
            not_after: SystemTime::UNIX_EPOCH,
            key,
        })
    }
}

/// A list made an hour before `now` and good for two, of certificates by their numbers.
pub fn revocation_list(now: SystemTime, serials: &[Vec<u8>]) -> CertificateRevocationListParams {
    const HOUR: Duration = Duration::from_secs(3600);
    CertificateRevocationListParams {
        this_update: (now - HOUR).into(),
        next_update: (now + HOUR).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: (now - HOUR).into(),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn new_key() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?)
}
