//! Bundles that go-spiffe reads, writes and publishes.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::federation::{self, BundleEndpoint, BundleUrl, Profile};
use identity::{BundleDocument, BundleHandle, Clock, Error, SpiffeId, TrustBundles, pem};
use rcgen::{CertificateParams, DistinguishedName, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::peer::{Domain, HOUR, Peer, ask};

const PUBLISHER: &str = "spiffe://two.test/publisher";

/// A JWK set as SPIRE writes it.
pub fn jwks(authorities: &[CertificateDer<'_>], sequence: u64) -> String {
    let key = |der: &CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
        let point = &certificate.public_key().subject_public_key.data;
        let (x, y) = point[1..].split_at(32);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        json!({
            "kty": "EC", "use": "x509-svid", "crv": "P-256", "x": url.encode(x), "y": url.encode(y),
            "x5c": [STANDARD.encode(der)],
        })
    };
    let keys: Vec<Value> = authorities.iter().map(key).collect();
    json!({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 5}).to_string()
}

#[tokio::test]
async fn go_spiffe_and_we_read_the_same_bundles() {
    let domain = Domain::start("one.test", &["spiffe://one.test/a"], HOUR).await;
    let good: Value = serde_json::from_str(&jwks(domain.root.cert_chain(), 7)).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut document = good.clone();
        change(&mut document);
        document
    };
    let documents = [
        ("as SPIRE writes it", good.clone()),
        ("empty", with(&|d| d["keys"] = json!([]))),
        (
            "no keys",
            with(&|d| drop(d.as_object_mut().unwrap().remove("keys"))),
        ),
        (
            "use missing",
            with(&|d| drop(d["keys"][0].as_object_mut().unwrap().remove("use"))),
        ),
        (
            "use unknown",
            with(&|d| d["keys"][0]["use"] = json!("later")),
        ),
        ("a key id", with(&|d| d["keys"][0]["kid"] = json!("1"))),
        (
            "two certificates",
            with(&|d| {
                let first = d["keys"][0]["x5c"][0].clone();
                d["keys"][0]["x5c"] = json!([first.clone(), first]);
            }),
        ),
        (
            "no certificate",
            with(&|d| drop(d["keys"][0].as_object_mut().unwrap().remove("x5c"))),
        ),
        (
            "a certificate that is none",
            with(&|d| d["keys"][0]["x5c"] = json!(["AAAA"])),
        ),
        (
            "no sequence",
            with(&|d| drop(d.as_object_mut().unwrap().remove("spiffe_sequence"))),
        ),
    ];
    let mut args = vec!["bundle".to_owned(), "one.test".to_owned()];
    for (number, (_, document)) in documents.iter().enumerate() {
        let file = domain.dir.path().join(format!("{number}.json"));
        std::fs::write(&file, document.to_string()).unwrap();
        args.push(file.display().to_string());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(said) = ask(&args).await else {
        return;
    };
    // Entries that the standard tells to ignore, and go-spiffe takes for a broken bundle.
    let lenient = ["no certificate", "two certificates"];
    for ((what, document), theirs) in documents.iter().zip(&said) {
        let ours = BundleDocument::from_jwks(document.to_string().as_bytes());
        match (&ours, theirs["error"].as_str()) {
            (Ok(ours), None) => {
                assert_eq!(
                    json!(ours.authorities.len()),
                    theirs["authorities"],
                    "{what}"
                );
                assert_eq!(json!(ours.sequence), theirs["sequence"], "{what}");
            }
            (Err(_), Some(_)) => {}
            (Ok(_), Some(error)) => assert!(lenient.contains(what), "{what}: {error}"),
            (Err(error), None) => panic!("{what}: {error}, and go-spiffe reads it"),
        }
    }
}

fn fetcher(
    address: &str,
    profile: Profile,
    bundles: &BundleHandle,
    path: &str,
) -> impl Future<Output = Result<BundleDocument, Error>> {
    let (_, port) = address.rsplit_once(':').unwrap();
    let endpoint = BundleEndpoint {
        trust_domain: SpiffeId::new(PUBLISHER).unwrap().trust_domain().clone(),
        url: format!("https://localhost:{port}{path}")
            .parse::<BundleUrl>()
            .unwrap(),
        profile,
    };
    let (bundles, address) = (bundles.clone(), address.to_owned());
    async move {
        let dial = || TcpStream::connect(&address);
        federation::fetch(&endpoint, &bundles, &Clock::system(), dial).await
    }
}

fn spiffe(id: &str) -> Profile {
    Profile::Spiffe(SpiffeId::new(id).unwrap())
}

#[tokio::test]
async fn a_bundle_is_followed_over_https_spiffe() {
    let two = Domain::start("two.test", &[PUBLISHER], HOUR).await;
    let file = two.bundle_file("bundle.json", 3);
    let file = file.to_str().unwrap();
    let Some(mut peer) = Peer::start(&["publish-spiffe", file, "two.test", &two.socket]) else {
        return;
    };
    let address = peer.address().await;
    let bundles = two.bundles();
    let fetched = fetcher(&address, spiffe(PUBLISHER), &bundles, "/")
        .await
        .unwrap();
    assert_eq!(fetched.authorities, two.root.cert_chain());
    assert_eq!(
        (fetched.sequence, fetched.refresh_hint),
        (Some(3), Some(Duration::from_secs(5)))
    );
    assert!(federation::apply(&bundles, &two.name, &fetched).unwrap());

    // The publisher turns its root: what is fetched next is in force, and the old one cannot come back.
    let next = Domain::start("two.test", &[PUBLISHER], HOUR).await;
    std::fs::write(file, jwks(next.root.cert_chain(), 4)).unwrap();
    let newer = fetcher(&address, spiffe(PUBLISHER), &bundles, "/")
        .await
        .unwrap();
    assert!(federation::apply(&bundles, &two.name, &newer).unwrap());
    let svid = next.credentials("spiffe://two.test/caller");
    assert_eq!(
        bundles.load().certificates(&two.name).collect::<Vec<_>>(),
        [&next.root.cert_chain()[0]]
    );
    assert!(svid.leaf().is_some());
    let back = federation::apply(&bundles, &two.name, &fetched);
    assert!(matches!(
        back,
        Err(Error::OlderBundle {
            held: 4,
            found: Some(3)
        })
    ));
    // And the endpoint itself, whose certificate is under the old root, is not believed any more.
    let error = fetcher(&address, spiffe(PUBLISHER), &bundles, "/")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not lead to the bundle"),
        "{error}"
    );
}

#[tokio::test]
async fn an_https_spiffe_endpoint_has_to_be_the_configured_one() {
    let two = Domain::start("two.test", &[PUBLISHER], HOUR).await;
    let file = two.bundle_file("bundle.json", 3);
    let Some(mut peer) = Peer::start(&[
        "publish-spiffe",
        file.to_str().unwrap(),
        "two.test",
        &two.socket,
    ]) else {
        return;
    };
    let address = peer.address().await;
    let other = spiffe("spiffe://two.test/somebody");
    let error = fetcher(&address, other, &two.bundles(), "/")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is not accepted here"),
        "{error}"
    );
    // A domain of the same name with another root, and one that we have no bundle of.
    let namesake = Domain::start("two.test", &[PUBLISHER], HOUR).await;
    let error = fetcher(&address, spiffe(PUBLISHER), &namesake.bundles(), "/")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not lead to the bundle"),
        "{error}"
    );
    let empty = TrustBundles::new().into_handle();
    let error = fetcher(&address, spiffe(PUBLISHER), &empty, "/")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no trust bundle"), "{error}");
    // A web client does not take an SVID for a web certificate.
    let web = Profile::Web(two.root.cert_chain().to_vec());
    fetcher(&address, web, &two.bundles(), "/")
        .await
        .unwrap_err();
}

/// A web server's certificate for `localhost`, and its root.
fn web(dir: &Path) -> CertificateDer<'static> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "web root");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = ((now - HOUR).into(), (now + HOUR).into());
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = rcgen::Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = ((now - HOUR).into(), (now + HOUR).into());
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("web.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("web.key"), key.serialize_pem()).unwrap();
    root
}

#[tokio::test]
async fn a_bundle_is_followed_over_https_web() {
    let two = Domain::start("two.test", &[PUBLISHER], HOUR).await;
    let root = web(two.dir.path());
    let file = two.bundle_file("bundle.json", 9);
    let at = |name: &str| two.dir.path().join(name).display().to_string();
    let (file, certificate, key) = (file.display().to_string(), at("web.pem"), at("web.key"));
    let Some(mut peer) = Peer::start(&["publish-web", &file, "two.test", &certificate, &key])
    else {
        return;
    };
    let address = peer.address().await;
    let profile = || Profile::Web(vec![root.clone()]);
    let bundles = TrustBundles::new().into_handle();
    let fetched = fetcher(&address, profile(), &bundles, "/").await.unwrap();
    assert_eq!((fetched.authorities.len(), fetched.sequence), (1, Some(9)));
    assert!(federation::apply(&bundles, &two.name, &fetched).unwrap());
    assert!(
        !federation::apply(&bundles, &two.name, &fetched).unwrap(),
        "the same again"
    );

    // Another root, another host, an SVID expected: nobody we know.
    let stranger = pem::certificates(&two.root.cert_pem()).unwrap();
    fetcher(&address, Profile::Web(stranger), &bundles, "/")
        .await
        .unwrap_err();
    fetcher(&address, spiffe(PUBLISHER), &bundles, "/")
        .await
        .unwrap_err();
    let (_, port) = address.rsplit_once(':').unwrap();
    let endpoint = BundleEndpoint {
        trust_domain: two.name.clone(),
        url: format!("https://elsewhere.test:{port}/").parse().unwrap(),
        profile: profile(),
    };
    let dial = || TcpStream::connect(&address);
    let error = federation::fetch(&endpoint, &bundles, &Clock::system(), dial).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("not valid for name")
    );
    // What is published is no bundle any more: what was held stays.
    std::fs::write(&file, "{}").unwrap();
    fetcher(&address, profile(), &bundles, "/")
        .await
        .unwrap_err();
    assert_eq!(bundles.load().sequence(&two.name), Some(9));
}
