//! Tells answers that a store gives once, and may not give again, from those that stay the
//! same until somebody changes the pipeline's file, or the store: the client takes both for
//! what can pass.

use std::fmt;
use std::pin::Pin;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// Connects as the client does by itself, and looks at the answers.
#[derive(Debug)]
pub struct Answers {
    /// Then others are about credentials.
    pub is_signed: bool,
}

/// What the store would answer again.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    status: u16,
    /// What it said of that, if it did.
    said: Option<String>,
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    is_signed: bool,
}

impl HttpConnector for Answers {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let is_signed = self.is_signed;
        Ok(HttpClient::new(Service { client, is_signed }))
    }
}

impl HttpService for Service {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let is_for_store = !self.is_signed || request.headers().contains_key("authorization");
            let is_written = request.method().as_str() == "PUT";
            let response = self.client.execute(request).await?;
            if !is_for_store {
                return Ok(response);
            }
            let status = response.status().as_u16();
            let is_success = response.status().is_success();
            // Without it, the client does not know what it has written.
            let is_no_store = is_written && is_success && !response.headers().contains_key("etag");
            let is_not_there = status == 404;
            if !is_lasting(status) && !is_no_store && !is_not_there {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let text = body.bytes().await?;
            let refused = Refused::of(status, &String::from_utf8_lossy(&text));
            // What is written has no other reason not to be there than its bucket.
            let is_object = is_not_there && !is_written && refused.code() != Some("NoSuchBucket");
            match is_object || refused.can_pass() {
                true => Ok(HttpResponse::from_parts(parts, text.into())),
                false => Err(HttpError::new(HttpErrorKind::Unknown, refused)),
            }
        })
    }
}

/// Of the others, the client tells what they mean: not there, too much at once.
fn is_lasting(status: u16) -> bool {
    match status {
        300..=399 => status != 304,
        400..=499 => ![404, 408, 409, 412, 423, 425, 429].contains(&status),
        501 | 505 => true,
        _ => false,
    }
}

/// Codes of S3 that come with status 400, and are about one request alone.
const OF_ONE_REQUEST: [&str; 4] = [
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
];

/// How much is shown of an answer.
const SHOWN_CHARS_MAX: usize = 200;

impl Refused {
    fn of(status: u16, body: &str) -> Self {
        let tag = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>"))
                .map(|(text, _)| text.trim())
        };
        let said = match (tag("Code"), tag("Message")) {
            (Some(code), Some(message)) => Some(format!("{code}: {message}")),
            (code, _) => code.map(str::to_owned),
        };
        let said = said.filter(|said| !said.is_empty());
        let said = said.map(|said| said.chars().take(SHOWN_CHARS_MAX).collect());
        Refused { status, said }
    }

    fn code(&self) -> Option<&str> {
        self.said.as_deref()?.split(':').next()
    }

    fn can_pass(&self) -> bool {
        self.code()
            .is_some_and(|code| OF_ONE_REQUEST.contains(&code))
    }

    /// What somebody has to do.
    fn advice(&self) -> &'static str {
        match (self.status, self.code().unwrap_or_default()) {
            (_, "InvalidAccessKeyId") => {
                "the store knows no such access key: correct AWS_ACCESS_KEY_ID, or `endpoint` in \
                 its `options` if it is another store"
            }
            (_, "SignatureDoesNotMatch") => {
                "the secret key is not that of the access key: correct AWS_SECRET_ACCESS_KEY"
            }
            (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
                "the session of these credentials is over: renew them"
            }
            (_, "RequestTimeTooSkewed" | "RequestExpired") => {
                "the clock of this machine differs from the store's: set it right"
            }
            (_, "AllAccessDisabled" | "AccountProblem" | "NotSignedUp" | "InvalidPayer") => {
                "the store serves this account no more: ask whoever runs it"
            }
            (300..=399, _) => {
                "the bucket is in another region or at another address: change `region` or \
                 `endpoint` in its `options`"
            }
            (400, _) => {
                "check `region` and `endpoint` in its `options`, and the name of the bucket"
            }
            (401 | 407, _) => {
                "the store does not accept these credentials: correct AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
            }
            (403, _) => {
                "these credentials may not do that: give them the rights to list, read, write and \
                 delete in the bucket, and check its name and the clock of this machine"
            }
            (404, _) => {
                "there is no such bucket: make it, or correct its name, or `region` or \
                 `endpoint` in its `options`"
            }
            _ => "this is no S3 store: change `endpoint` in its `options`",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answers with status {}", self.status)?;
        if let Some(said) = &self.said {
            write!(f, " ({said})")?;
        }
        write!(f, ": {}", self.advice())
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lasts_unless_it_is_about_one_request() {
        let shown = |status, body: &str| Refused::of(status, body).to_string();
        let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting \
                      'eu-west-1'</Message></Error>";
        assert!(
            shown(400, region).starts_with(
                "it answers with status 400 (AuthorizationHeaderMalformed: expecting 'eu-west-1')"
            ),
            "{}",
            shown(400, region)
        );
        assert!(shown(301, "").contains("another region"));
        assert!(shown(405, "<html>").contains("no S3 store"));
        assert!(shown(400, &format!("<Code>{}</Code>", "x".repeat(100_000))).len() < 400);
        for (status, code, advice) in [
            (403, "", "the rights to list, read, write and delete"),
            (
                403,
                "AccessDenied",
                "the rights to list, read, write and delete",
            ),
            (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
            (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
            (403, "RequestTimeTooSkewed", "the clock of this machine"),
            (400, "ExpiredToken", "renew them"),
            (401, "", "does not accept these credentials"),
            (404, "NoSuchBucket", "there is no such bucket"),
        ] {
            let text = shown(status, &format!("<Error><Code>{code}</Code></Error>"));
            assert!(text.contains(advice), "{text}");
            assert!(text.len() < 300 && !text.contains('<'), "{text}");
        }
        for code in OF_ONE_REQUEST {
            assert!(Refused::of(400, &format!("<Code>{code}</Code>")).can_pass());
        }
        assert!(!Refused::of(400, region).can_pass());
        for status in [301, 302, 307, 308, 400, 401, 403, 405, 411, 501] {
            assert!(is_lasting(status), "{status}");
        }
        for status in [200, 204, 206, 304, 404, 408, 409, 429, 500, 502, 503, 504] {
            assert!(!is_lasting(status), "{status}");
        }
    }
}
