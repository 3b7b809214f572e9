//! Is a request from a program on this machine, or from a web page that a browser on this machine shows?
//!
//! A page of any site can make the browser connect to loopback, and with DNS rebinding can call it by the site's own
//! name. Such requests carry that name in `Host`, or the page's site in `Origin`.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Request};

/// Set by browsers, not by pages (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// What is wrong with a request's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    Host,
    Origin,
}

pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Foreign> {
    let headers = request.headers();
    let authority = host(request).ok_or(Foreign::Host)?;
    if !is_loopback(authority.host()) {
        return Err(Foreign::Host);
    }
    // A page served by this very address would be ours, and there is none: so in practice no page gets through.
    if let Some(origin) = only(headers, ORIGIN.as_str()).map_err(|()| Foreign::Origin)?
        && origin.strip_prefix("http://") != Some(authority.as_str())
    {
        return Err(Foreign::Origin);
    }
    match only(headers, SEC_FETCH_SITE).map_err(|()| Foreign::Origin)? {
        None | Some("none" | "same-origin") => Ok(()),
        Some(_) => Err(Foreign::Origin),
    }
}

/// The name the client used: `:authority` in HTTP/2, `Host` in HTTP/1.1. Where both are given they agree.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    let header = match only(request.headers(), HOST.as_str()) {
        Ok(Some(text)) => Some(text.parse::<Authority>().ok()?),
        Ok(None) => None,
        Err(()) => return None,
    };
    match (request.uri().authority(), header) {
        (Some(uri), Some(header)) => (*uri == header).then_some(header),
        (Some(uri), None) => Some(uri.clone()),
        (None, header) => header,
    }
}

fn is_loopback(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || literal
            .unwrap_or(host)
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The value of a header that may be given once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_not_text| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_headers(headers: &[(&str, &str)]) -> Result<(), Foreign> {
        let mut request = Request::builder().uri("/v1/models");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn programs_on_this_machine_pass() {
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
        ] {
            assert_eq!(check_headers(&[("host", host)]), Ok(()), "{host}");
        }
        let own = [
            ("host", "localhost:8080"),
            ("origin", "http://localhost:8080"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(check_headers(&own), Ok(()));
        let h2 = Request::builder()
            .uri("http://localhost:8080/v1/models")
            .body(())
            .unwrap();
        assert_eq!(check(&h2), Ok(()));
    }

    #[test]
    fn a_rebound_name_is_refused() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "192.0.2.1",
            "0.0.0.0:8080",
            "[::]",
            "",
            "localhost.",
            "[::ffff:127.0.0.1",
        ] {
            assert_eq!(
                check_headers(&[("host", host)]),
                Err(Foreign::Host),
                "{host}"
            );
        }
        assert_eq!(check_headers(&[]), Err(Foreign::Host));
        assert_eq!(
            check_headers(&[("host", "localhost"), ("host", "localhost")]),
            Err(Foreign::Host)
        );
        let both = Request::builder()
            .uri("http://evil.example/")
            .header("host", "localhost")
            .body(())
            .unwrap();
        assert_eq!(check(&both), Err(Foreign::Host));
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "https://localhost:8080",
            "",
        ] {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            assert_eq!(check_headers(&headers), Err(Foreign::Origin), "{origin}");
        }
        for site in ["cross-site", "same-site", "nonsense"] {
            let headers = [("host", "localhost:8080"), ("sec-fetch-site", site)];
            assert_eq!(check_headers(&headers), Err(Foreign::Origin), "{site}");
        }
    }
}
