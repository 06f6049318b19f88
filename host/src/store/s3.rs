//! S3 and compatible stores, as `options` and the environment describe them.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::{ClientConfigKey, RetryConfig};
use reqwest::Url;

use super::answers::Answers;
use super::signature::Signatures;
use crate::plan::state::RemotePlan;

/// A store, and the credentials that sign requests to it, if they are signed.
pub struct S3 {
    pub store: AmazonS3,
    pub credentials: Option<AwsCredentialProvider>,
}

/// How long the client repeats a request that fails, or has no answer within half a minute.
/// Whoever has made it says so, and may try again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Checks all that the store's client would only find out from a request, where it
/// panics, or fails in a way that looks as if it could pass.
pub fn connect(plan: &RemotePlan) -> Result<S3, String> {
    let mut builder = AmazonS3Builder::new()
        .with_url(plan.url.as_str())
        .with_crypto_provider(Arc::new(Signatures));
    let settings = settings(plan)?;
    for setting in &settings {
        check_characters(setting)?;
        builder = builder.with_config(setting.key, setting.value.as_str());
    }
    let is_on = |key| {
        builder
            .get_config_value(&key)
            .is_some_and(|value| is_true(&value))
    };
    let is_signed = !is_on(AmazonS3ConfigKey::SkipSignature);
    let allows_http = is_on(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    // Of those that are given, the client takes the last, and first that of S3 alone.
    let last = |key| settings.iter().rfind(|setting| setting.key == key);
    let endpoint = last(AmazonS3ConfigKey::S3Endpoint).or(last(AmazonS3ConfigKey::Endpoint));
    if let Some(endpoint) = endpoint {
        check_endpoint(&endpoint.value, allows_http)
            .map_err(|problem| format!("{} {problem}", endpoint.name))?;
    }
    let store = builder
        .with_retry(RetryConfig {
            retry_timeout: RETRY_MAX,
            ..RetryConfig::default()
        })
        .with_http_connector(Answers { is_signed });
    let store = store.build().map_err(|error| error.to_string())?;
    Ok(S3 {
        credentials: is_signed.then(|| store.credentials().clone()),
        store,
    })
}

struct Setting {
    /// For messages, which do not have the value: it may be secret.
    name: String,
    key: AmazonS3ConfigKey,
    value: String,
}

/// Those of the environment, then the options, which win.
fn settings(plan: &RemotePlan) -> Result<Vec<Setting>, String> {
    // Keys are better kept in the environment than in a file.
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        // Some variables are for other programs.
        let key = name
            .starts_with("AWS_")
            .then(|| name.to_ascii_lowercase())?;
        Some(Setting {
            key: key.parse().ok()?,
            value: value.into_string().ok()?,
            name: format!("the environment's {name}"),
        })
    });
    let mut settings: Vec<Setting> = environment.collect();
    for (option, value) in &plan.options {
        let Ok(key) = option.parse() else {
            return Err(format!("`{option}` is not an option of S3"));
        };
        settings.push(Setting {
            name: format!("the option `{option}`"),
            key,
            value: value.clone(),
        });
    }
    Ok(settings)
}

/// Of what becomes a part of a host's name or of a request's header.
fn check_characters(setting: &Setting) -> Result<(), String> {
    let name = &setting.name;
    let value = setting.value.as_bytes();
    let is_region = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    match setting.key {
        AmazonS3ConfigKey::Region | AmazonS3ConfigKey::DefaultRegion
            if value.is_empty() || !value.iter().all(is_region) =>
        {
            Err(format!(
                "{name} is no region: give one such as \"eu-central-1\""
            ))
        }
        AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::Token
            if !value.iter().all(u8::is_ascii_graphic) =>
        {
            Err(format!(
                "{name} has a space, a line break or another character that requests cannot \
                 have: give it without"
            ))
        }
        _ => Ok(()),
    }
}

fn check_endpoint(endpoint: &str, allows_http: bool) -> Result<(), String> {
    let wrong = |problem: &str| {
        format!(
            "is no address of a store ({problem}): give one such as \"https://host:9000\", with \
             `https://` or `http://`, a host and, if needed, a port"
        )
    };
    let (scheme, authority) = endpoint.split_once("://").unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(wrong("it does not start with `https://` or `http://`"));
    }
    // Names of buckets cannot follow a `?` or `#`, and a URL's parser skips or escapes what
    // the client does not.
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]@".contains(&byte);
    if !endpoint.bytes().all(is_good) {
        return Err(wrong("it has characters that are not allowed there"));
    }
    let url: Url = match endpoint.parse() {
        Ok(url) => url,
        Err(error) => return Err(wrong(&error.to_string())),
    };
    if authority.starts_with(['/', ':']) {
        return Err(wrong("it has no host"));
    }
    if url.port() == Some(0) {
        return Err(wrong("0 is no port"));
    }
    if endpoint.contains('@') {
        return Err(wrong(
            "keys are given as `aws_access_key_id` and `aws_secret_access_key`",
        ));
    }
    if scheme == "http" && !allows_http {
        return Err(
            "starts with `http://`, which is not encrypted: use `https://`, or allow it with \
             `allow_http = \"true\"` in the options"
                .to_owned(),
        );
    }
    Ok(())
}

/// Whether a switch is on, in any of the spellings that the client takes.
fn is_true(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "1" | "true" | "on" | "yes" | "y")
}
