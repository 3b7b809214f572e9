//! Bundle endpoints that answer what they should not. What they should: `tests/spiffe_peers.rs`, with go-spiffe's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use identity::federation::{BundleEndpoint, BundleUrl, Profile, fetch};
use identity::issue::new_svid;
use identity::{
    BundleDocument, ClientAuth, Credentials, Error, MAX_DOCUMENT, TrustBundles, server_config,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{HOUR, clock_at, domain, id, now, root};

const PUBLISHER: &str = "spiffe://two.test/publisher";
const EMPTY: &str = "{\"keys\": []}";

/// Fetches from an endpoint that answers `answer(path)` to each request, and counts them.
async fn ask(answer: fn(&str) -> String) -> (Result<BundleDocument, Error>, usize) {
    let root = root("two.test");
    let credentials = Arc::new(Credentials::with_clock(clock_at(now())));
    credentials.install(new_svid(&root, &id(PUBLISHER), HOUR, now()).unwrap());
    let config = server_config(credentials, ClientAuth::None, &[b"http/1.1"]).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let dial = move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            count.fetch_add(1, Ordering::SeqCst);
            serve(acceptor, far, answer).await.ok();
        });
        async move { Ok::<_, io::Error>(near) }
    };
    let endpoint = BundleEndpoint {
        trust_domain: domain("two.test"),
        url: "https://two.test/bundle?v=1".parse().unwrap(),
        profile: Profile::Spiffe(id(PUBLISHER)),
    };
    let bundles = TrustBundles::from_pem(root.trust_domain(), &root.cert_pem()).unwrap();
    let bundles = bundles.into_handle();
    let got = fetch(&endpoint, &bundles, &clock_at(now()), dial).await;
    (got, asked.load(Ordering::SeqCst))
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: DuplexStream,
    answer: fn(&str) -> String,
) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    assert!(
        request.to_lowercase().contains("host: two.test:443"),
        "{request}"
    );
    let path = request.split(' ').nth(1).unwrap();
    stream.write_all(answer(path).as_bytes()).await?;
    stream.shutdown().await
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

async fn refused(expected: &str, answer: fn(&str) -> String) {
    let (got, _) = ask(answer).await;
    let error = got.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[tokio::test]
async fn a_document_is_asked_for_by_its_path_and_read() {
    let (got, asked) = ask(|path| match path {
        "/bundle?v=1" => ok(EMPTY),
        _ => ok("wrong path"),
    })
    .await;
    assert!(got.unwrap().authorities.is_empty());
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_redirect_leads_only_elsewhere_on_the_same_server() {
    let (got, asked) = ask(|path| match path {
        "/bundle?v=1" => moved("/new"),
        "/new" => moved("https://two.test:443/newest"),
        "/newest" => ok(EMPTY),
        _ => ok("wrong path"),
    })
    .await;
    assert!(got.is_ok());
    assert_eq!(asked, 3, "each on a connection of its own, proved anew");
    refused("which is not configured", |_| {
        moved("https://evil.test/bundle")
    })
    .await;
    refused("which is not configured", |_| {
        moved("https://two.test:444/bundle")
    })
    .await;
    refused("https url", |_| moved("//evil.test/bundle")).await;
    refused("https url", |_| moved("http://two.test/bundle")).await;
    refused("https url", |_| moved("https://two.test@evil.test/")).await;
    refused("without a location", |_| {
        "HTTP/1.1 307 x\r\ncontent-length: 0\r\n\r\n".to_owned()
    })
    .await;
}

#[tokio::test]
async fn redirects_in_circles_end() {
    let (got, asked) = ask(|_| moved("/again")).await;
    assert!(got.unwrap_err().to_string().contains("circles"));
    assert_eq!(asked, 4);
}

#[tokio::test]
async fn what_is_no_document_is_refused() {
    refused("answers 404", |_| {
        "HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n".to_owned()
    })
    .await;
    refused("answers 204", |_| "HTTP/1.1 204 x\r\n\r\n".to_owned()).await;
    refused("no jwk set", |_| ok("<html>")).await;
    refused("length limit", |_| ok(&" ".repeat(MAX_DOCUMENT + 1))).await;
    refused("bundle endpoint", |_| {
        "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"keys\"".to_owned()
    })
    .await;
    refused("bundle endpoint", |_| "SSH-2.0\r\n".to_owned()).await;
    refused("bundle endpoint", |_| String::new()).await;
}

#[test]
fn a_url_is_https_with_a_host_and_nothing_that_hides_it() {
    let url: BundleUrl = "https://bundles.two.test/a/b?c".parse().unwrap();
    assert_eq!(url.address(), "bundles.two.test:443");
    let url: BundleUrl = "https://[::1]:8443".parse().unwrap();
    assert_eq!(url.address(), "[::1]:8443");
    for bad in [
        "",
        "two.test",
        "/bundle",
        "http://two.test/",
        "spiffe://two.test/a",
        "https:///a",
        "https://a@two.test/",
        "https://two.test:x/",
    ] {
        assert!(bad.parse::<BundleUrl>().is_err(), "{bad}");
    }
}
