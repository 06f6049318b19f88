//! Decides which requests are answered: those of bearers of a token, where there are any;
//! none that a page of another site has a browser send; and not too many.
//!
//! A browser asks its user for a token as the password of any user name, so that the live
//! page needs no other way to log in.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::problem::Problem;
use crate::http::is_loopback;
use crate::http::listener::Peer;
use crate::service::store::BY_HTTP;
use crate::service::tokens::{Role, Tokens};

/// How many requests with a wrong token an address may send in a minute.
const WRONG_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);
/// What is answered to everybody, and asked again and again.
pub const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What has the texts of pipelines' files, which may have passwords in them.
pub const FILES: [&str; 2] = [
    "/api/v1/pipelines/{name}/file",
    "/api/v1/pipelines/{name}/changes/{digest}/diff",
];

type Limiter = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>;

/// Who may ask, and how often.
pub struct Access {
    rules: RwLock<Arc<Rules>>,
    has_tls: bool,
    /// Of requests with a wrong token.
    wrong: Limiter,
}

/// What may be another while requests come.
struct Rules {
    /// Without, everybody may do everything.
    tokens: Option<Tokens>,
    /// Of all requests.
    rate: Limiter,
}

impl Rules {
    fn new(tokens: Option<Tokens>, rate: NonZeroU32) -> Arc<Rules> {
        let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(4));
        Arc::new(Rules {
            tokens,
            rate: RateLimiter::hashmap(Quota::per_second(rate).allow_burst(burst)),
        })
    }
}

impl Access {
    /// `rate` is how many requests an address may send in a second.
    pub fn new(tokens: Option<Tokens>, has_tls: bool, rate: NonZeroU32) -> Access {
        Access {
            rules: RwLock::new(Rules::new(tokens, rate)),
            has_tls,
            wrong: RateLimiter::hashmap(Quota::per_minute(WRONG_MAX)),
        }
    }

    /// Has other tokens and another rate from now on.
    pub fn change(&self, tokens: Option<Tokens>, rate: NonZeroU32) {
        let rules = self.rules.write();
        *rules.unwrap_or_else(PoisonError::into_inner) = Rules::new(tokens, rate);
    }

    fn rules(&self) -> Arc<Rules> {
        let rules = self.rules.read();
        rules.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets addresses that have sent nothing lately.
    pub fn forget(&self) {
        for limiter in [&self.rules().rate, &self.wrong] {
            limiter.retain_recent();
        }
    }

    /// Who sends a request that is answered.
    fn caller(&self, peer: IpAddr, request: &Request) -> Result<Caller, Problem> {
        let rules = self.rules();
        let is_open = OPEN.contains(&request.uri().path());
        // Who looks whether the host is well may share an address with who asks for much.
        if !is_open && rules.rate.check_key(&peer).is_err() {
            return Err(Problem::too_many(
                "this address sends too many requests: `--rate` of the service sets the limit",
            ));
        }
        let headers = request.headers();
        if let Some(why) = foreign(headers, rules.tokens.is_some(), self.has_tls) {
            return Err(Problem::forbidden(why));
        }
        let anybody = || Caller(BY_HTTP.to_owned());
        let Some(tokens) = &rules.tokens else {
            return Ok(anybody());
        };
        if is_open {
            return Ok(anybody());
        }
        let Some(token) = token(headers) else {
            return Err(Problem::unauthorized(
                "this needs a token: send `Authorization: Bearer TOKEN`",
            ));
        };
        match tokens.bearer(&token) {
            Some((name, Role::Admin)) => Ok(Caller(name)),
            Some((_, Role::Read)) if is_of_file(request) => Err(Problem::forbidden(
                "a pipeline's file may have passwords in it: this needs a token with the role \
                 `admin`",
            )),
            Some((name, Role::Read)) if reads(request.method()) => Ok(Caller(name)),
            Some((_, Role::Read)) => Err(Problem::forbidden(
                "the token may only look: this needs one with the role `admin`",
            )),
            None => Err(match self.wrong.check_key(&peer) {
                Ok(()) => Problem::unauthorized("there is no such token"),
                Err(_) => Problem::too_many(
                    "this address has sent too many wrong tokens: try again in a minute",
                ),
            }),
        }
    }
}

/// Who sends a request: the name of a token, or [`BY_HTTP`].
#[derive(Clone)]
pub struct Caller(pub String);

/// What a request that lasts was answered by.
#[derive(Clone)]
pub struct Session {
    access: Arc<Access>,
    token: Option<String>,
}

impl Session {
    /// Whether it would still be answered: its token may have been removed.
    pub fn holds(&self) -> bool {
        match (&self.access.rules().tokens, &self.token) {
            (None, _) => true,
            (Some(tokens), Some(token)) => tokens.bearer(token).is_some(),
            (Some(_), None) => false,
        }
    }
}

/// Answers a request, or says why not.
pub async fn check(
    State(access): State<Arc<Access>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match access.caller(peer.ip(), &request) {
        Ok(caller) => {
            let session = Session {
                token: token(request.headers()),
                access,
            };
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(session);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Whether such a request changes nothing.
fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Whether it asks for a pipeline's file.
fn is_of_file(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>();
    path.is_some_and(|path| FILES.contains(&path.as_str()))
}

/// The token that a request brings.
fn token(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = given.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(given.trim().to_owned()),
        "basic" => {
            let decoded = BASE64_STANDARD.decode(given.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            Some(text.split_once(':')?.1.to_owned())
        }
        _ => None,
    }
}

/// Why a page of another site may have sent the request, if so. A page whose name leads to
/// loopback has its own name in `Host`; any other page has it in `Origin`. A page under
/// another name has no token of this host.
fn foreign(headers: &HeaderMap, has_tokens: bool, has_tls: bool) -> Option<&'static str> {
    let authority = |name| Some(headers.get(name)?.to_str().ok()?.parse::<Authority>().ok());
    if let Some(host) = authority(header::HOST)
        && !has_tokens
        && !host.is_some_and(|host| is_loopback(host.host()))
    {
        return Some("this host is asked for by `localhost` or its address");
    }
    let origin = headers.get(header::ORIGIN)?;
    let scheme = if has_tls { "https://" } else { "http://" };
    let origin = origin.to_str().ok();
    let origin = origin.and_then(|origin| origin.strip_prefix(scheme));
    let origin = origin.and_then(|origin| origin.parse::<Authority>().ok());
    let is_own = origin == authority(header::HOST).flatten();
    (!is_own).then_some("pages of other sites may not use this host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        let value = |value: &'static str| value.parse().expect("a header");
        pairs.map(|(name, text)| (name, value(text))).collect()
    }

    #[test]
    fn only_the_hosts_own_page_may_ask() {
        use header::{HOST, ORIGIN};
        let is_refused = |pairs: &[(header::HeaderName, &'static str)]| {
            foreign(&headers(pairs), false, false).is_some()
        };
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
        let named = [(HOST, "host.example"), (ORIGIN, "https://host.example")];
        assert!(foreign(&headers(&named), true, true).is_none());
        assert!(foreign(&headers(&named), true, false).is_some());
    }

    #[test]
    fn a_token_comes_as_a_bearer_or_as_a_password() {
        let of = |text| token(&headers(&[(header::AUTHORIZATION, text)]));
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(of("Basic bWU6YTpi").as_deref(), Some("a:b"));
        for wrong in ["abc", "Basic !", "Basic bWU=", "Digest abc"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
