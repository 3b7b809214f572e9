//! Genuine documents under a root made for the occasion. Only this crate's own tests and benchmark use it; the
//! simulated secure module, which knows far more, lives outside of this crate.

use std::time::{Duration, SystemTime};

use attestation::{Evidence, Pcr, Pcrs, TrustAnchor};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, date_time_ymd,
};

pub(crate) struct Genuine<const N: usize> {
    pub(crate) anchor: TrustAnchor,
    pub(crate) evidence: [Evidence; N],
    pub(crate) now: SystemTime,
    pub(crate) pcrs: Pcrs,
}

pub(crate) const NONCE: &[u8] = &[7; 32];
pub(crate) const PUBLIC_KEY: &[u8] = &[8; 91];

/// Root, three intermediates and `N` leaves, as the real ones, and a document by each leaf, which carries `user_data`.
pub(crate) fn genuine<const N: usize>(user_data: &[u8]) -> Genuine<N> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000 + 3600); // 2030-01-01T01:00Z
    let mut issuer = authority("root", None);
    let root = issuer.0.clone();
    let mut cabundle = vec![issuer.0.clone()];
    for name in ["regional", "zonal", "instance"] {
        issuer = authority(name, Some(&issuer.1));
        cabundle.push(issuer.0.clone());
    }
    let pcrs: Pcrs = (0..16)
        .map(|index| (index, Pcr::ZERO.extend(&[index])))
        .collect();
    let evidence = std::array::from_fn(|_| document(user_data, now, &pcrs, &cabundle, &issuer.1));
    Genuine {
        anchor: TrustAnchor::from_der(&root).unwrap(),
        evidence,
        now,
        pcrs,
    }
}

fn document(
    user_data: &[u8],
    now: SystemTime,
    pcrs: &Pcrs,
    cabundle: &[Vec<u8>],
    issuer: &Issuer<'static, KeyPair>,
) -> Evidence {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut leaf = params("leaf");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = leaf.signed_by(&key, issuer).unwrap();

    let mut payload = vec![0xbf];
    let mut member = |name: &str, value: Vec<u8>| {
        payload.extend(text(name));
        payload.extend(value);
    };
    member("module_id", text("i-0123456789abcdef0-enc0123456789abcdef"));
    member("digest", text("SHA384"));
    let milliseconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    member("timestamp", head(0, u64::try_from(milliseconds).unwrap()));
    let registers = pcrs
        .iter()
        .flat_map(|(i, v)| [head(0, u64::from(*i)), bytes(v.as_bytes())].concat());
    member("pcrs", head(5, 16).into_iter().chain(registers).collect());
    member("certificate", bytes(leaf.der()));
    member(
        "cabundle",
        [
            head(4, 4),
            cabundle.iter().flat_map(|der| bytes(der)).collect(),
        ]
        .concat(),
    );
    member("public_key", bytes(PUBLIC_KEY));
    member("user_data", bytes(user_data));
    member("nonce", bytes(NONCE));
    payload.push(0xff);

    let protected = bytes(&[0xa1, 0x01, 0x38, 0x22]);
    let signed = [
        &[0x84][..],
        &text("Signature1"),
        &protected,
        &[0x40],
        &bytes(&payload),
    ]
    .concat();
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der()).unwrap();
    let signature = signer.sign(&SystemRandom::new(), &signed).unwrap();
    let document = [
        &[0x84][..],
        &protected,
        &[0xa0],
        &bytes(&payload),
        &bytes(signature.as_ref()),
    ]
    .concat();
    Evidence::from_bytes(document).unwrap()
}

fn authority(
    name: &str,
    issuer: Option<&Issuer<'static, KeyPair>>,
) -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    (certificate.der().to_vec(), Issuer::new(params, key))
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2030, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 2);
    params
}

fn head(major: u8, argument: u64) -> Vec<u8> {
    let all = argument.to_be_bytes();
    match argument {
        0..=23 => vec![major << 5 | all[7]],
        24..=0xff => vec![major << 5 | 24, all[7]],
        0x100..=0xffff => [&[major << 5 | 25], &all[6..]].concat(),
        0x1_0000..=0xffff_ffff => [&[major << 5 | 26], &all[4..]].concat(),
        _ => [&[major << 5 | 27], &all[..]].concat(),
    }
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len() as u64), value.to_vec()].concat()
}

fn text(value: &str) -> Vec<u8> {
    [head(3, value.len() as u64), value.as_bytes().to_vec()].concat()
}
