//! Where a broker is and who it must be, from the command line.

use std::path::{Path, PathBuf};

use identity::{SpiffeId, TrustBundles};
use kbs_client::{Server, ServerIdentity};
use rustls_pki_types::ServerName;
use transport::Endpoint;

use super::Failure;

/// Who has to answer: a host name under given roots, or a SPIFFE ID under a bundle.
#[derive(clap::Args)]
pub(super) struct ServerArgs {
    /// The roots of the broker's certificate, PEM; the host name in the URL has to be in it
    #[arg(long, value_name = "FILE", conflicts_with = "spiffe_id")]
    ca: Option<PathBuf>,
    /// The broker's SPIFFE ID, instead of a host name
    #[arg(long, value_name = "ID", requires = "bundle")]
    spiffe_id: Option<String>,
    /// The CA certificates of its trust domain, PEM
    #[arg(long, value_name = "FILE", requires = "spiffe_id")]
    bundle: Option<PathBuf>,
}

impl ServerArgs {
    pub(super) fn web(ca: PathBuf) -> Self {
        Self {
            ca: Some(ca),
            spiffe_id: None,
            bundle: None,
        }
    }

    pub(super) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The server at `url`, which the argument `flag` gave, and the bundle that its ID is checked against.
    pub(super) fn server(
        &self,
        url: &str,
        flag: &str,
    ) -> Result<(Server, Option<TrustBundles>), Failure> {
        if let (Some(id), Some(bundle)) = (&self.spiffe_id, &self.bundle) {
            let id = SpiffeId::new(id)
                .map_err(|error| Failure::usage(format!("--spiffe-id: {error}")))?;
            let text = read(bundle)?;
            let bundles = TrustBundles::from_pem(id.trust_domain(), &text)
                .map_err(|error| Failure::usage(format!("{}: {error}", bundle.display())))?;
            let endpoint = endpoint(url)?;
            let identity = ServerIdentity::Spiffe(id);
            return Ok((Server { endpoint, identity }, Some(bundles)));
        }
        let Some(ca) = &self.ca else {
            return Err(Failure::usage(
                "give --ca FILE, or --spiffe-id ID and --bundle FILE",
            ));
        };
        let roots = identity::pem::certificates(&read(ca)?)
            .map_err(|error| Failure::usage(format!("{}: {error}", ca.display())))?;
        let (address, host) = web_address(url).ok_or_else(|| {
            Failure::usage(format!(
                "{flag} {url}: with a CA, write https://HOST or https://HOST:PORT"
            ))
        })?;
        let name = ServerName::try_from(host)
            .map_err(|error| Failure::usage(format!("{flag} {url}: {error}")))?;
        let server = Server {
            endpoint: Endpoint::Tcp(address),
            identity: ServerIdentity::Web { name, roots },
        };
        Ok((server, None))
    }
}

/// `host:port` and `host` of an https URL without a path.
fn web_address(url: &str) -> Option<(String, String)> {
    let url: http::Uri = url.parse().ok()?;
    let plain = url.scheme_str() == Some("https")
        && matches!(url.path(), "" | "/")
        && url.query().is_none();
    let authority = url
        .authority()
        .filter(|authority| plain && !authority.as_str().contains('@'))?;
    let port = authority.port_u16().unwrap_or(443);
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some((format!("{host}:{port}"), bare.to_owned()))
}

/// What to dial, where nothing depends on the host's name: an endpoint, or an https URL.
pub(super) fn endpoint(url: &str) -> Result<Endpoint, Failure> {
    let endpoint = match web_address(url) {
        Some((address, _)) => return Ok(Endpoint::Tcp(address)),
        None => url.parse(),
    };
    endpoint.map_err(|error| Failure::usage(format!("--url {url}: {error}")))
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_https_url_gives_what_to_dial_and_what_to_expect() {
        let address = |url| web_address(url).map(|(address, host)| format!("{address} {host}"));
        let expect = |url, expected: &str| assert_eq!(address(url).as_deref(), Some(expected));
        expect(
            "https://kbs.example.org:8080",
            "kbs.example.org:8080 kbs.example.org",
        );
        expect(
            "https://kbs.example.org/",
            "kbs.example.org:443 kbs.example.org",
        );
        expect("https://[::1]:8080", "[::1]:8080 ::1");
        for url in [
            "http://kbs.example.org",
            "https://",
            "https://user@kbs.example.org",
            "https://kbs.example.org/kbs/v0",
            "https://kbs.example.org?x=1",
            "tcp://127.0.0.1:1",
        ] {
            assert_eq!(address(url), None, "{url}");
        }
    }
}
