//! A registry of schemas, by the REST API that Confluent's has. What may pass is asked again,
//! later and later; a schema never changes, so that each is asked for once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::blame::{Fault, with_causes};
use crate::connector::network;
use crate::connector::server::{Password, delay};
use crate::decode::{AVRO, RegisteredSchema};
use crate::offload::blocking;
use crate::stop::Stop;
use crate::text::truncate;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long it takes until it is asked again: at first, and at most.
const RETRY_FROM: Duration = Duration::from_millis(200);
const RETRY_TO: Duration = Duration::from_secs(10);

/// No schema is longer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// No schema names more others, directly or by way of others.
const REFERENCES_MAX: usize = 100;

/// How much of an answer a message shows.
const SHOWN_BYTES_MAX: usize = 300;

/// How often a waiting thread looks whether the run is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long whoever asks at a keyboard waits.
const ASKED_MAX: Duration = Duration::from_secs(10);

/// Registries number schemas so far.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// Among so many versions of a subject, a schema is looked for that is the same.
const VERSIONS_MAX: usize = 100;

/// For so many schemas a source asks at a time.
const ASKING_MAX: usize = 8;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.schemaregistry.v1+json, application/json");

/// How a registry is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConnection {
    pub address: Url,
    /// A user and a password.
    pub user: Option<(String, Password)>,
    pub token: Option<Password>,
}

impl fmt::Display for RegistryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.address.as_str().trim_end_matches('/'))
    }
}

/// Why a registry does not say what it is asked.
#[derive(Clone, Debug)]
pub struct Problem {
    pub cause: String,
    pub fault: Fault,
}

impl Problem {
    fn passing(cause: impl Into<String>) -> Self {
        Problem {
            cause: cause.into(),
            fault: Fault::OUTSIDE,
        }
    }

    fn lasting(cause: impl Into<String>) -> Self {
        Problem {
            cause: cause.into(),
            fault: Fault::OUTSIDE_LASTING,
        }
    }
}

/// A schema, or why rows with it cannot be read.
pub type Found = Result<RegisteredSchema, String>;

/// The schema of a sink, which is to have a number.
pub struct OwnSchema {
    pub subject: String,
    /// As the registry calls it.
    pub language: &'static str,
    pub text: String,
    /// Whether the subject may get it.
    pub may_be_added: bool,
    /// Whether a schema with another text says the same of rows.
    pub is_same: Box<dyn Fn(&RegisteredSchema) -> bool + Send + Sync>,
}

/// Asks a registry.
#[derive(Clone)]
pub struct Registry {
    /// "source `clicks`".
    who: Arc<str>,
    connection: RegistryConnection,
    client: Client,
}

/// A schema as the registry tells it.
#[derive(Deserialize)]
struct Told {
    /// Where it is a version of a subject.
    id: Option<u32>,
    schema: String,
    #[serde(rename = "schemaType")]
    language: Option<String>,
    references: Option<Vec<Reference>>,
}

#[derive(Deserialize)]
struct Reference {
    /// As the schema calls it.
    name: String,
    subject: String,
    version: i64,
}

/// What the registry has of what it is asked for.
enum Answer {
    Is(Json),
    Unknown(String),
    Refused(String),
}

impl Registry {
    pub fn new(who: &str, connection: &RegistryConnection) -> Result<Self, Problem> {
        let client = Client::builder()
            .user_agent(concat!("sluicebox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| {
                Problem::lasting(format!("HTTP cannot be used: {}", with_causes(&error)))
            })?;
        Ok(Registry {
            who: who.into(),
            connection: connection.clone(),
            client,
        })
    }

    /// The schema with this number.
    async fn schema(&self, id: u32) -> Result<Found, Problem> {
        if id > ID_MAX {
            return Ok(Err(format!("the numbers of schemas end at {ID_MAX}")));
        }
        let id = id.to_string();
        let path = ["schemas", "ids", &id];
        match self.ask(Method::GET, &path, None).await? {
            Answer::Is(json) => self.with_references(self.told(json)?).await,
            Answer::Unknown(_) => Ok(Err(format!("{} has none", self.connection))),
            Answer::Refused(why) => Err(Problem::lasting(why)),
        }
    }

    /// A schema with all those that it names.
    async fn with_references(&self, told: Told) -> Result<Found, Problem> {
        let mut references = Vec::new();
        let mut asked = HashSet::new();
        let mut wanted = told.references.unwrap_or_default();
        while let Some(Reference {
            name,
            subject,
            version,
        }) = wanted.pop()
        {
            // Different schemas may name one by different names.
            if !asked.insert((name.clone(), subject.clone(), version)) {
                continue;
            }
            if asked.len() > REFERENCES_MAX {
                return Ok(Err(format!("it names more than {REFERENCES_MAX} others")));
            }
            let Some(told) = self.version(&subject, version).await? else {
                return Ok(Err(format!(
                    "it names `{name}`, version {version} of subject `{subject}`, which {} does \
                     not have",
                    self.connection
                )));
            };
            wanted.extend(told.references.unwrap_or_default());
            references.push((name, told.schema));
        }
        Ok(Ok(RegisteredSchema {
            language: told.language.unwrap_or_else(|| AVRO.to_owned()),
            text: told.schema,
            references,
        }))
    }

    async fn version(&self, subject: &str, version: i64) -> Result<Option<Told>, Problem> {
        let path = ["subjects", subject, "versions", &version.to_string()];
        match self.ask(Method::GET, &path, None).await? {
            Answer::Is(json) => Ok(Some(self.told(json)?)),
            Answer::Unknown(_) => Ok(None),
            Answer::Refused(why) => Err(Problem::lasting(why)),
        }
    }

    /// The number of a schema in its subject, which gets it if it may.
    async fn number(&self, own: &OwnSchema) -> Result<u32, Problem> {
        let subject = &*own.subject;
        let body = json!({ "schema": own.text, "schemaType": own.language });
        let path: &[&str] = match own.may_be_added {
            true => &["subjects", subject, "versions"],
            false => &["subjects", subject],
        };
        match self.ask(Method::POST, path, Some(body)).await? {
            Answer::Is(json) => {
                let id = json.get("id").and_then(Json::as_u64);
                let id = id.and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| self.without_id())
            }
            Answer::Unknown(why) if !own.may_be_added => match self.same(own).await? {
                Some(id) => Ok(id),
                None => Err(Problem::lasting(format!(
                    "subject `{subject}` does not have the schema ({why}): register it, or write \
                     `register = true`; it is {}",
                    own.text
                ))),
            },
            Answer::Unknown(why) | Answer::Refused(why) => Err(Problem::lasting(format!(
                "the schema cannot be registered in subject `{subject}`: {why}"
            ))),
        }
    }

    /// The number of a schema that is the same, and is written differently: the latest.
    async fn same(&self, own: &OwnSchema) -> Result<Option<u32>, Problem> {
        let path = ["subjects", &own.subject, "versions"];
        let versions = match self.ask(Method::GET, &path, None).await? {
            Answer::Is(json) => json,
            Answer::Unknown(_) => return Ok(None),
            Answer::Refused(why) => return Err(Problem::lasting(why)),
        };
        let versions = versions.as_array().into_iter().flatten();
        let mut versions: Vec<i64> = versions.filter_map(Json::as_i64).collect();
        versions.sort_unstable();
        for version in versions.into_iter().rev().take(VERSIONS_MAX) {
            let Some(told) = self.version(&own.subject, version).await? else {
                continue;
            };
            let id = told.id;
            if let Ok(schema) = self.with_references(told).await?
                && (own.is_same)(&schema)
            {
                return id.map(Some).ok_or_else(|| self.without_id());
            }
        }
        Ok(None)
    }

    fn without_id(&self) -> Problem {
        Problem::lasting(self.is_none("it answers without an id"))
    }

    fn told(&self, json: Json) -> Result<Told, Problem> {
        serde_json::from_value(json)
            .map_err(|error| Problem::lasting(self.is_none(&format!("its answer: {error}"))))
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Json>,
    ) -> Result<Answer, Problem> {
        let mut url = self.connection.address.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url).header(ACCEPT, ACCEPTED);
        if let Some(body) = body {
            let body = body.to_string();
            request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body);
        }
        let sent = self.with_credentials(request).send().await;
        let answer = sent.map_err(|error| {
            let why = match error.is_timeout() && !error.is_connect() {
                true => format!("no answer within {} s", ANSWER_MAX.as_secs()),
                false => with_causes(&error.without_url()),
            };
            Problem::passing(why)
        })?;
        let status = answer.status();
        let bytes = bytes_of(answer).await?;
        let said = || {
            let json: Option<Json> = serde_json::from_slice(&bytes).ok();
            let message = json.as_ref().and_then(|json| json["message"].as_str());
            let mut said = match message {
                Some(message) => message.to_owned(),
                None => String::from_utf8_lossy(&bytes).trim().to_owned(),
            };
            truncate(&mut said, SHOWN_BYTES_MAX);
            said
        };
        match status {
            _ if status.is_success() => match serde_json::from_slice(&bytes) {
                Ok(json) => Ok(Answer::Is(json)),
                Err(error) => Err(Problem::lasting(
                    self.is_none(&format!("its answer is no JSON: {error}")),
                )),
            },
            StatusCode::NOT_FOUND => {
                let json: Option<Json> = serde_json::from_slice(&bytes).ok();
                let code = json.and_then(|json| json["error_code"].as_u64());
                // 40401 to 40403: the subject, the version, the schema.
                match code {
                    Some(40_401..=40_499) => Ok(Answer::Unknown(said())),
                    _ => Err(Problem::lasting(
                        self.is_none(&format!("it answers {status}: {}", said())),
                    )),
                }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Problem::lasting(format!(
                "it answers {status}: correct `user` and `password`, or `token`, of `registry`, \
                 or allow them to read and write schemas"
            ))),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(Problem::passing(format!("it answers {status}: {}", said())))
            }
            _ if status.is_server_error() => {
                Err(Problem::passing(format!("it answers {status}: {}", said())))
            }
            _ if status.is_redirection() => Err(Problem::lasting(self.is_none(&format!(
                "it answers {status}, and redirects are not followed"
            )))),
            _ => Ok(Answer::Refused(format!("{status}: {}", said()))),
        }
    }

    fn with_credentials(&self, request: RequestBuilder) -> RequestBuilder {
        match (&self.connection.user, &self.connection.token) {
            (Some((user, password)), _) => request.basic_auth(user, Some(&password.0)),
            (None, Some(token)) => request.bearer_auth(&token.0),
            (None, None) => request,
        }
    }

    /// Says that something else is at the address.
    fn is_none(&self, why: &str) -> String {
        format!("{why}; is this the address of a schema registry?")
    }

    /// Asks until there is an answer.
    async fn insist<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut attempt = 0;
        loop {
            let problem = match ask().await {
                Err(problem) if problem.fault.can_pass => problem,
                answer => return answer,
            };
            let delay = delay(attempt, RETRY_FROM, RETRY_TO);
            attempt += 1;
            let (who, connection, cause) = (&self.who, &self.connection, &problem.cause);
            tracing::warn!(
                "{who}: the schema registry {connection} does not answer, rows wait: {cause}; \
                 trying again in {} ms",
                delay.as_millis()
            );
            sleep(delay).await;
        }
    }

    /// The number of a schema, which is waited for as long as the run goes on.
    pub fn register(&self, schema: OwnSchema, stop: &Stop) -> Result<u32, Problem> {
        let own = self.clone();
        let is_over = || stop.asked();
        self.wait(
            is_over,
            async move { own.insist(|| own.number(&schema)).await },
        )
    }

    /// The schema with this number, for somebody who waits for it.
    pub fn find(&self, id: u32) -> Result<Found, Problem> {
        let own = self.clone();
        let until = Instant::now() + ASKED_MAX;
        self.wait(
            || Instant::now() > until,
            async move { own.schema(id).await },
        )
    }

    /// Waits on this thread, which may be one of a runtime.
    fn wait<T: Send + 'static>(
        &self,
        is_over: impl Fn() -> bool,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let (sender, answer) = sync_channel(1);
        let task = network::runtime()
            .map_err(Problem::passing)?
            .spawn(async move {
                // Whoever has asked may have gone.
                let _ = sender.send(work.await);
            });
        let answer = blocking(|| {
            loop {
                match answer.recv_timeout(LOOK) {
                    Ok(answer) => return Some(answer),
                    Err(RecvTimeoutError::Timeout) if !is_over() => {}
                    Err(_) => return None,
                }
            }
        });
        task.abort();
        answer.unwrap_or_else(|| Err(Problem::passing("it has not answered")))
    }
}

async fn bytes_of(mut answer: Response) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(more)) => bytes.extend_from_slice(&more),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(Problem::passing(with_causes(&error.without_url()))),
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Problem::lasting(format!(
                "it answers more than {} MiB",
                ANSWER_BYTES_MAX >> 20
            )));
        }
    }
}

/// Asks for schemas while other rows are read.
pub struct Lookups {
    registry: Registry,
    /// Notified when a schema has come.
    wake: Arc<Notify>,
    /// Limits how many ask at a time.
    room: Arc<Semaphore>,
    /// Who asks for which schema.
    asking: HashMap<u32, AbortHandle>,
    sender: UnboundedSender<(u32, Result<Found, Problem>)>,
    answers: UnboundedReceiver<(u32, Result<Found, Problem>)>,
}

impl Lookups {
    pub fn new(registry: Registry, wake: &Arc<Notify>) -> Self {
        let (sender, answers) = unbounded_channel();
        Lookups {
            registry,
            wake: wake.clone(),
            room: Arc::new(Semaphore::new(ASKING_MAX)),
            asking: HashMap::new(),
            sender,
            answers,
        }
    }

    /// Asks for a schema, unless somebody does.
    pub fn want(&mut self, id: u32) -> Result<(), Problem> {
        if self.asking.contains_key(&id) {
            return Ok(());
        }
        let network = network::runtime().map_err(Problem::passing)?;
        let (registry, room) = (self.registry.clone(), self.room.clone());
        let (wake, sender) = (self.wake.clone(), self.sender.clone());
        let task = network.spawn(async move {
            // It is never closed.
            let _place = room.acquire().await;
            let found = registry.insist(|| registry.schema(id)).await;
            // The source may have gone.
            let _ = sender.send((id, found));
            wake.notify_one();
        });
        self.asking.insert(id, task.abort_handle());
        Ok(())
    }

    /// A schema that has come.
    pub fn take(&mut self) -> Option<(u32, Result<Found, Problem>)> {
        let (id, found) = self.answers.try_recv().ok()?;
        self.asking.remove(&id);
        Some((id, found))
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        for task in self.asking.values() {
            task.abort();
        }
    }
}
