//! Refuses requests that a page of another site has a browser send: a host on loopback
//! answers everybody on the machine, and a browser there runs pages of strangers.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

pub async fn check(request: Request, next: Next) -> Response {
    match refusal(request.headers()) {
        Some(why) => Problem::forbidden(why).into_response(),
        None => next.run(request).await,
    }
}

/// A page whose name leads to loopback has its own name in `Host`; any other page has it
/// in `Origin`.
fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let authority = |name| Some(headers.get(name)?.to_str().ok()?.parse::<Authority>().ok());
    if let Some(host) = authority(header::HOST)
        && !host.as_ref().is_some_and(is_loopback)
    {
        return Some("this host is asked for by `localhost` or its address");
    }
    let origin = headers.get(header::ORIGIN)?;
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("http://"));
    let origin = origin.and_then(|origin| origin.parse::<Authority>().ok());
    let is_own = origin == authority(header::HOST).flatten();
    (!is_own).then_some("pages of other sites may not use this host")
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(pairs: &[(header::HeaderName, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(name, value.parse().expect("a header"));
        }
        refusal(&headers).is_some()
    }

    #[test]
    fn only_the_hosts_own_page_may_ask() {
        use header::{HOST, ORIGIN};
        assert!(!is_refused(&[]));
        assert!(!is_refused(&[(HOST, "localhost:7878")]));
        assert!(!is_refused(&[(HOST, "127.0.0.1:7878")]));
        assert!(!is_refused(&[(HOST, "[::1]:7878")]));
        assert!(is_refused(&[(HOST, "evil.example")]));
        assert!(is_refused(&[(HOST, "127.0.0.1.evil.example:7878")]));
        let own = (HOST, "localhost:7878");
        assert!(!is_refused(&[
            own.clone(),
            (ORIGIN, "http://localhost:7878")
        ]));
        assert!(is_refused(&[
            own.clone(),
            (ORIGIN, "http://localhost:8000")
        ]));
        assert!(is_refused(&[own.clone(), (ORIGIN, "null")]));
        assert!(is_refused(&[own, (ORIGIN, "http://evil.example")]));
    }
}
