//! Asks a running host by its HTTP interface. Whatever goes wrong is told with what to do:
//! nobody answers, the answer is not a host's, or the host says why it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Body, Certificate, Method, Response, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

use super::{CliError, print};
use crate::blame::causes;
use crate::http::is_loopback;

const DEFAULT: &str = "http://127.0.0.1:7878";
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a host may say nothing: a savepoint takes a minute at most.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// The same where it may compile a large plugin.
const COMPILE_MAX: Duration = Duration::from_secs(600);

/// Which host is asked, and how.
#[derive(Args)]
pub struct HostArguments {
    /// The host's address, as `https://shop.example:7878`; without it, that in SLUICEBOX_HOST,
    /// or http://127.0.0.1:7878
    #[arg(long, value_name = "URL")]
    host: Option<String>,
    /// A file with a token that the host knows; without it, that in SLUICEBOX_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate of whoever has signed the host's, as PEM, if the system does not
    /// trust it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print what the host answers, as JSON
    #[arg(long)]
    pub json: bool,
}

/// A host that is asked.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// What it is asked about, as paths of the interface name it.
    about: &'static str,
    runtime: Runtime,
    is_json: bool,
}

/// Why a host does not do what it is asked for, by RFC 9457.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    code: String,
}

impl HostArguments {
    /// Asks about pipelines.
    pub fn client(&self) -> Result<Client, CliError> {
        self.client_about("pipelines", SILENCE_MAX)
    }

    /// Asks about plugins.
    pub fn client_of_plugins(&self) -> Result<Client, CliError> {
        self.client_about("plugins", COMPILE_MAX)
    }

    fn client_about(&self, about: &'static str, silence_max: Duration) -> Result<Client, CliError> {
        let base = self.base().map_err(CliError::Usage)?;
        let token = self.token().map_err(CliError::Usage)?;
        let is_local = base.host_str().is_some_and(is_loopback);
        let mut headers = HeaderMap::new();
        if let Some(mut token) = token {
            if base.scheme() == "http" && !is_local {
                tracing::warn!(
                    "whoever sees the network sees the token: ask by https, if the host has TLS"
                );
            }
            token.set_sensitive(true);
            headers.insert(AUTHORIZATION, token);
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("sluicebox/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_MAX)
            .read_timeout(silence_max)
            // The token is for this host alone.
            .redirect(redirect::Policy::none());
        if is_local {
            http = http.no_proxy();
        }
        if let Some(file) = &self.ca {
            for certificate in certificates(file).map_err(CliError::Usage)? {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http.build().context("requests cannot be made");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Client {
            http: http.map_err(CliError::Failed)?,
            base,
            about,
            runtime: runtime.map_err(|error| CliError::Failed(error.into()))?,
            is_json: self.json,
        })
    }

    fn base(&self) -> anyhow::Result<Url> {
        let of_environment = variable("SLUICEBOX_HOST");
        let text = self.host.as_deref().or(of_environment.as_deref());
        let text = text.unwrap_or(DEFAULT);
        // `localhost:7878` would be of the scheme `localhost`.
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let example = "it is one such as http://127.0.0.1:7878 or https://shop.example:7878";
        let url = whole.parse::<Url>();
        let url =
            url.map_err(|error| anyhow!("`{text}` is no host\'s address: {error}; {example}"))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(anyhow!("`{text}` is no host\'s address: {example}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(anyhow!(
                "the host\'s address has a user or a password: give a token by --token-file or \
                 SLUICEBOX_TOKEN"
            ));
        }
        Ok(url)
    }

    fn token(&self) -> anyhow::Result<Option<HeaderValue>> {
        let token = match &self.token_file {
            Some(file) => {
                let text = fs::read_to_string(file);
                Some(text.with_context(|| format!("cannot read the token of {}", file.display()))?)
            }
            None => variable("SLUICEBOX_TOKEN"),
        };
        let Some(token) = token else {
            return Ok(None);
        };
        let header = format!("Bearer {}", token.trim()).parse();
        let header = header.map_err(|_| {
            anyhow!("the token has characters that no token has: `sluicebox token new` makes one")
        });
        header.map(Some)
    }
}

/// An environment variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let wrong = || format!("{} has no certificate", file.display());
    let pem = fs::read(file).with_context(wrong)?;
    let certificates = Certificate::from_pem_bundle(&pem).with_context(wrong)?;
    match certificates.is_empty() {
        true => Err(anyhow!("{} has no certificate, as PEM", file.display())),
        false => Ok(certificates),
    }
}

/// What a host has answered.
pub struct Answer(String);

impl Answer {
    /// What is no JSON.
    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn read<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        serde_json::from_str(&self.0).map_err(|error| {
            CliError::Failed(anyhow!(
                "the host\'s answer is not the expected one, perhaps since it is of another \
                 version: {error}"
            ))
        })
    }
}

impl Client {
    pub fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, CliError> {
        self.ask(Method::GET, path, query, None)
    }

    pub fn post(&self, path: &[&str], body: Option<String>) -> Result<Answer, CliError> {
        self.ask(Method::POST, path, &[], body)
    }

    pub fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer, CliError> {
        self.answer(method, path, query, body.map(Body::from))
    }

    /// Sends a file.
    pub fn upload(&self, bytes: Vec<u8>) -> Result<Answer, CliError> {
        self.answer(Method::POST, &[], &[], Some(Body::from(bytes)))
    }

    fn answer(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Body>,
    ) -> Result<Answer, CliError> {
        self.runtime.block_on(async {
            let response = self.send(method, path, query, body).await?;
            let text = response.text().await;
            text.map(Answer).map_err(|error| self.broken(&error))
        })
    }

    /// Asks for an answer that comes in parts, and gives each to `take` until that returns
    /// false or the answer ends. Returns whether it has ended.
    pub fn follow(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        mut take: impl FnMut(&[u8]) -> Result<bool, CliError>,
    ) -> Result<bool, CliError> {
        self.runtime.block_on(async {
            let mut response = self.send(Method::GET, path, query, None).await?;
            loop {
                let part = response.chunk().await;
                match part.map_err(|error| self.broken(&error))? {
                    None => return Ok(true),
                    Some(part) if take(&part)? => {}
                    Some(_) => return Ok(false),
                }
            }
        })
    }

    /// Prints an answer: as it is for programs, or as `to_text` says.
    pub fn show<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        to_text: impl FnOnce(T) -> String,
    ) -> Result<(), CliError> {
        match self.is_json {
            true => self.show_json(answer),
            false => print(&to_text(answer.read()?)),
        }
    }

    fn show_json(&self, answer: &Answer) -> Result<(), CliError> {
        // Numbers stay as the host has written them.
        let json: Box<RawValue> = answer.read()?;
        print::json(&json, false).map_err(|error| CliError::Failed(error.into()))
    }

    /// Tells people what was done; programs see that it was.
    pub fn tell(&self, text: &str) -> Result<(), CliError> {
        match self.is_json {
            true => Ok(()),
            false => print(text),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Body>,
    ) -> Result<Response, CliError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            let api = ["api", "v1", self.about];
            let api = api.iter().chain(path);
            segments.pop_if_empty().extend(api);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.map_err(|error| self.broken(&error))?;
        let Ok(problem) = serde_json::from_str::<Problem>(&text) else {
            return Err(CliError::Failed(anyhow!(
                "{} answers {status}, and not as a host of Sluicebox does: is the address right?",
                self.base
            )));
        };
        let Problem { detail, code } = problem;
        Err(match code.as_str() {
            "bad_request" | "not_found" | "too_large" | "refused" => {
                CliError::Usage(anyhow!("{detail}"))
            }
            "unauthorized" => CliError::Usage(anyhow!(
                "{detail}\n  give a token by --token-file or SLUICEBOX_TOKEN; on the host, \
                 `sluicebox token new` makes one"
            )),
            _ => CliError::Failed(anyhow!("{detail}")),
        })
    }

    /// Nobody has answered, or not to the end.
    fn broken(&self, error: &reqwest::Error) -> CliError {
        let first = causes(error).last();
        let cause = first.map_or_else(|| error.to_string(), ToString::to_string);
        let base = &self.base;
        let is_tls = ["certificate", "SSL", "TLS"];
        let is_tls = is_tls.iter().any(|word| cause.contains(word));
        CliError::Failed(if error.is_timeout() {
            anyhow!(
                "the host at {base} does not answer in time: is it busy, or is a firewall between?"
            )
        } else if is_tls && cause.contains("certificate") {
            anyhow!(
                "the certificate of {base} is not trusted: {cause}\n  name who has signed it by \
                 --ca FILE"
            )
        } else if is_tls {
            anyhow!(
                "{base} cannot be asked: {cause}\n  a host without TLS has an address that begins \
                 with http://"
            )
        } else if error.is_connect() {
            anyhow!(
                "no host answers at {base}: {cause}\n  start one by `sluicebox serve`, or say where \
                 it is by --host or SLUICEBOX_HOST"
            )
        } else if base.scheme() == "http" {
            anyhow!(
                "the host at {base} breaks off: {cause}\n  it was stopped, or it has TLS, and its \
                 address begins with https://"
            )
        } else {
            anyhow!("the host at {base} breaks off: {cause}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(host: &str) -> Result<String, String> {
        let arguments = HostArguments {
            host: Some(host.to_owned()),
            token_file: None,
            ca: None,
            json: false,
        };
        let base = arguments.base().map_err(|error| error.to_string());
        base.map(|url| url.to_string())
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, url) in [
            ("localhost:7878", "http://localhost:7878/"),
            ("[::1]:80", "http://[::1]/"),
            ("https://shop.example/host", "https://shop.example/host"),
        ] {
            assert_eq!(base(text).as_deref(), Ok(url));
        }
        for (text, why) in [
            ("ftp://shop.example", "is no host's address"),
            ("http://", "is no host's address"),
            ("http://me:secret@shop.example", "--token-file"),
        ] {
            let error = base(text).expect_err(text);
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
