use attestation::{Nonce, Sha256Digest, Subject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::SpiffeId;
use kbs_client::{Error, TeeKey};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _, SanType, SignatureAlgorithm,
};
use serde_json::{Value, json};
use sim::nsm::{DocumentBuilder, SimNsm};

use crate::broker::{Broker, ENCLAVE_ID, Setup, other_pcrs, pcrs};
use crate::peer::{Answer, Session, document, key_release, wire};

fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

/// A request as a hostile host might write it.
struct Csr {
    der: Vec<u8>,
    spki: Vec<u8>,
}

fn csr(
    algorithm: &'static SignatureAlgorithm,
    names: &[SanType],
    edit: impl FnOnce(&mut CertificateParams),
) -> Csr {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    edit(&mut params);
    Csr {
        der: params.serialize_request(&key).unwrap().der().to_vec(),
        spki: key.subject_public_key_info(),
    }
}

fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

fn right() -> Csr {
    csr(&PKCS_ECDSA_P256_SHA256, &[uri(ENCLAVE_ID)], |_| {})
}

impl Csr {
    fn subject(&self) -> Subject {
        Subject::SvidIssuance {
            csr_sha256: Sha256Digest::of(&self.der),
            spki_sha256: Sha256Digest::of(&self.spki),
        }
    }

    fn evidence(
        &self,
        nsm: &SimNsm,
        nonce: &Nonce,
        spoil: impl FnOnce(&mut DocumentBuilder),
    ) -> Value {
        wire(&document(
            nsm,
            nonce.as_bytes(),
            &self.spki,
            self.subject(),
            spoil,
        ))
    }
}

async fn challenge(broker: &Broker) -> Nonce {
    let answer = broker
        .post("/cloister/v0/challenge", &[], &json!({}))
        .await
        .ok();
    Nonce::from_base64url(answer.json()["nonce"].as_str().unwrap()).unwrap()
}

async fn ask(broker: &Broker, nonce: &Nonce, csr: &[u8], evidence: &Value) -> Answer {
    let request = json!({
        "nonce": nonce.to_base64url(),
        "csr": STANDARD.encode(csr),
        "evidence": evidence,
    });
    broker.post("/cloister/v0/svid", &[], &request).await
}

/// Everything right but the request itself.
async fn ask_for(broker: &Broker, csr: &Csr) -> Answer {
    let nonce = challenge(broker).await;
    let evidence = csr.evidence(&broker.nsm(pcrs()), &nonce, |_| {});
    ask(broker, &nonce, &csr.der, &evidence).await
}

#[tokio::test]
async fn an_attested_enclave_gets_the_identity_of_its_measurement() {
    let broker = Broker::start().await;
    let svid = broker
        .client(pcrs())
        .issue_svid(&id(ENCLAVE_ID))
        .await
        .unwrap();
    let leaf = broker.bundles().verify(svid.chain(), broker.now()).unwrap();
    assert_eq!(leaf.id, id(ENCLAVE_ID));
    let entry = broker.last_entry();
    assert_eq!(
        (entry.outcome.as_str(), entry.path.as_str()),
        ("issued", ENCLAVE_ID)
    );
    assert_eq!(entry.serial, Some(leaf.serial));
    assert_eq!(
        entry.tee_key,
        Some(Sha256Digest::of(&leaf.spki_der).to_string())
    );
    assert_eq!(entry.pcr0, Some(pcrs()[&0].to_string()));
}

#[tokio::test]
async fn every_svid_is_over_a_new_key() {
    let broker = Broker::start().await;
    let client = broker.client(pcrs());
    let one = client.issue_svid(&id(ENCLAVE_ID)).await.unwrap();
    let two = client.issue_svid(&id(ENCLAVE_ID)).await.unwrap();
    assert_ne!(one.leaf().spki_der, two.leaf().spki_der);
}

#[tokio::test]
async fn another_identity_than_the_mapped_one_is_denied() {
    let broker = Broker::start().await;
    let wish = id("spiffe://example.org/enclave/other");
    let error = broker.client(pcrs()).issue_svid(&wish).await.err().unwrap();
    assert!(
        matches!(&error, Error::Refused { kind } if kind == "PolicyDeny"),
        "{error}"
    );
    assert_eq!(
        broker.last_entry().error_type.as_deref(),
        Some("PolicyDeny")
    );
}

#[tokio::test]
async fn a_measurement_without_a_name_gets_none() {
    let broker = Broker::start().await;
    let error = broker
        .client(other_pcrs())
        .issue_svid(&id(ENCLAVE_ID))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&error, Error::Refused { kind } if kind == "PolicyDeny"),
        "{error}"
    );
    let entry = broker.last_entry();
    assert_eq!(entry.pcr0, Some(other_pcrs()[&0].to_string()));
    assert!(entry.reason.unwrap().contains("PCR0"));
}

#[tokio::test]
async fn a_request_that_wishes_for_more_than_its_name_is_denied() {
    let broker = Broker::start().await;
    let p256 = &PKCS_ECDSA_P256_SHA256;
    let name = uri(ENCLAVE_ID);
    let dns = SanType::DnsName("example.org".try_into().unwrap());
    for (csr, why) in [
        (
            csr(&PKCS_ECDSA_P384_SHA384, std::slice::from_ref(&name), |_| {}),
            "p-256",
        ),
        (
            csr(&PKCS_ED25519, std::slice::from_ref(&name), |_| {}),
            "p-256",
        ),
        (
            csr(
                p256,
                &[name.clone(), uri("spiffe://example.org/other")],
                |_| {},
            ),
            "exactly one",
        ),
        (
            csr(p256, &[name.clone(), uri("https://example.org/")], |_| {}),
            "exactly one",
        ),
        (
            csr(p256, &[name.clone(), dns.clone()], |_| {}),
            "exactly one",
        ),
        (csr(p256, &[dns], |_| {}), "exactly one"),
        (csr(p256, &[], |_| {}), "exactly one"),
        (csr(p256, &[uri("spiffe://example.org")], |_| {}), "no path"),
        (
            csr(p256, &[uri("spiffe://other.org/enclave/demo")], |_| {}),
            "asks for",
        ),
        (
            csr(p256, std::slice::from_ref(&name), |params| {
                params
                    .distinguished_name
                    .push(DnType::CommonName, "example.org");
            }),
            "subject",
        ),
        (
            csr(p256, &[name], |params| {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }),
            "more than a name",
        ),
    ] {
        let answer = ask_for(&broker, &csr).await;
        broker.assert_refused(&answer, "PolicyDeny");
        let reason = broker.last_entry().reason.unwrap();
        assert!(reason.contains(why), "{why}: {reason}");
    }
    // The harness itself is right: what is not spoiled is issued.
    ask_for(&broker, &right()).await.ok();
}

#[tokio::test]
async fn a_request_for_another_key_than_the_attested_one_is_refused() {
    let broker = Broker::start().await;
    let nonce = challenge(&broker).await;
    let evidence = right().evidence(&broker.nsm(pcrs()), &nonce, |_| {});
    let answer = ask(&broker, &nonce, &right().der, &evidence).await;
    broker.assert_refused(&answer, "AttestationError");
    assert!(broker.last_entry().reason.unwrap().contains("public key"));
}

#[tokio::test]
async fn a_request_changed_after_attestation_is_refused() {
    let broker = Broker::start().await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(name)];
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    let attested = Csr {
        der: request("spiffe://example.org/enclave/other"),
        spki: key.subject_public_key_info(),
    };
    let nonce = challenge(&broker).await;
    let evidence = attested.evidence(&broker.nsm(pcrs()), &nonce, |_| {});
    let answer = ask(&broker, &nonce, &request(ENCLAVE_ID), &evidence).await;
    broker.assert_refused(&answer, "AttestationError");
    assert!(broker.last_entry().reason.unwrap().contains("user data"));
}

#[tokio::test]
async fn a_request_that_its_own_key_did_not_sign_is_denied() {
    let broker = Broker::start().await;
    let mut csr = right();
    *csr.der.last_mut().unwrap() ^= 1;
    let answer = ask_for(&broker, &csr).await;
    broker.assert_refused(&answer, "PolicyDeny");
}

#[tokio::test]
async fn a_challenge_is_good_once_and_for_a_minute() {
    let broker = Broker::start().await;
    let (nsm, csr) = (broker.nsm(pcrs()), right());

    let late = challenge(&broker).await;
    broker.pass(60);
    let answer = ask(&broker, &late, &csr.der, &csr.evidence(&nsm, &late, |_| {})).await;
    broker.assert_refused(&answer, "AttestationError");

    let made_up = Nonce::random();
    let answer = ask(
        &broker,
        &made_up,
        &csr.der,
        &csr.evidence(&nsm, &made_up, |_| {}),
    )
    .await;
    broker.assert_refused(&answer, "AttestationError");

    // A failed attempt uses it up.
    let nonce = challenge(&broker).await;
    let spoiled = csr.evidence(&nsm, &nonce, |document| document.spoil_signature = 1);
    let answer = ask(&broker, &nonce, &csr.der, &spoiled).await;
    broker.assert_refused(&answer, "AttestationError");
    let evidence = csr.evidence(&nsm, &nonce, |_| {});
    let answer = ask(&broker, &nonce, &csr.der, &evidence).await;
    broker.assert_refused(&answer, "AttestationError");

    // So does a successful one.
    let nonce = challenge(&broker).await;
    let evidence = csr.evidence(&nsm, &nonce, |_| {});
    ask(&broker, &nonce, &csr.der, &evidence).await.ok();
    let answer = ask(&broker, &nonce, &csr.der, &evidence).await;
    assert_eq!(answer.kind(), "AttestationError");
}

#[tokio::test]
async fn evidence_for_a_key_release_issues_nothing() {
    let broker = Broker::start().await;
    let (nsm, csr, nonce) = (broker.nsm(pcrs()), right(), challenge(&broker).await);
    let key = TeeKey::generate_p256().unwrap();
    let subject = key_release(&nonce.to_base64url(), key.jwk());
    let made = document(&nsm, nonce.as_bytes(), &csr.spki, subject, |_| {});
    let answer = ask(&broker, &nonce, &csr.der, &wire(&made)).await;
    broker.assert_refused(&answer, "AttestationError");
    assert!(
        broker
            .last_entry()
            .reason
            .unwrap()
            .contains("svid-issuance")
    );
    // And a challenge of one endpoint is none of the other's.
    let session = Session::open(&broker).await;
    let body = json!({"nonce": session.nonce, "csr": "", "evidence": wire(&made)});
    let answer = broker.post("/cloister/v0/svid", &[], &body).await;
    broker.assert_refused(&answer, "SerdeError");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let broker = Broker::start().await;
    let (nsm, csr, nonce) = (broker.nsm(pcrs()), right(), challenge(&broker).await);
    let evidence = csr.evidence(&nsm, &nonce, |_| {});
    for body in [
        json!(null),
        json!({}),
        json!({"nonce": "", "csr": "", "evidence": evidence}),
        json!({"nonce": nonce.to_base64url(), "csr": STANDARD.encode(&csr.der), "evidence": evidence, "id": ENCLAVE_ID}),
    ] {
        let answer = broker.post("/cloister/v0/svid", &[], &body).await;
        broker.assert_refused(&answer, "SerdeError");
    }
}

#[tokio::test]
async fn a_broker_without_an_issuer_issues_nothing() {
    let broker = Broker::with(Setup {
        issuer: false,
        ..Setup::default()
    })
    .await;
    let answer = ask_for(&broker, &right()).await;
    broker.assert_refused(&answer, "PluginNotFound");
}
