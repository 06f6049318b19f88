//! Reads entries on a thread of its own, since the client blocks. A connection that is lost
//! is made again, for as long as it takes.
//!
//! What a stream has gained and what it is are asked for together, in a transaction: entries
//! that were trimmed away before they were read are noticed, whenever that happens.

use std::sync::Arc;
use std::sync::mpsc as requests;

use redis::{ServerError, Value, from_redis_value};
use tokio::sync::mpsc as answers;

use super::entry::{Entry, EntryId, bytes};
use super::{Commands, Failure, RedisConnection, Session, checked, refused};
use crate::blame::Fault;
use crate::connector::server::Backoff;
use crate::text::truncate;

/// How long the server waits for entries, in ms.
const WAIT_MS: &[u8] = b"500";

/// How much of an answer a message shows.
const SHOWN_BYTES_MAX: usize = 200;

/// Entries to read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which of the streams it is.
    pub stream: usize,
    pub key: Arc<str>,
    pub after: EntryId,
    /// How many at most.
    pub count: usize,
}

pub struct Request {
    pub wanted: Vec<Wanted>,
    /// Whether to wait a little if there are no entries.
    pub waits: bool,
}

/// What was read of a stream.
#[derive(Debug)]
pub struct Read {
    pub stream: usize,
    /// What the stream was then. One that is not there has no entries.
    pub state: StreamState,
    pub entries: Vec<Entry>,
    /// Whether there were no more.
    pub is_all: bool,
}

/// What the server says about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// How many entries it has, and how many were ever added.
    pub length: u64,
    pub added: u64,
    pub last: EntryId,
    pub first: Option<EntryId>,
}

impl StreamState {
    /// How many entries it has no more.
    pub fn gone(&self) -> u64 {
        self.added.saturating_sub(self.length)
    }
}

/// A thread that reads, one request after the other. It ends with its requests.
pub struct Reading {
    requests: requests::Sender<Request>,
    answers: answers::Receiver<Result<Vec<Read>, Failure>>,
}

impl Reading {
    /// Goes on with a connection that is open. `who` names the source in the log.
    pub fn start(
        session: Session,
        connection: &RedisConnection,
        who: &Arc<str>,
    ) -> std::io::Result<Reading> {
        let (requests, taken) = requests::channel();
        let (sender, answers) = answers::channel(1);
        let mut worker = Worker {
            session: Some(session),
            connection: connection.clone(),
            who: who.clone(),
            answers: sender,
        };
        std::thread::Builder::new()
            .name("redis-read".to_owned())
            .spawn(move || {
                for request in taken {
                    let Some(answer) = worker.answer(&request) else {
                        return;
                    };
                    if worker.answers.blocking_send(answer).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Reading { requests, answers })
    }

    pub fn ask(&self, request: Request) {
        // A thread that has ended has nothing to answer, which is noticed then.
        let _ = self.requests.send(request);
    }

    /// The answer to the request, or `None` if the thread has ended. May be dropped while it
    /// waits.
    pub async fn answer(&mut self) -> Option<Result<Vec<Read>, Failure>> {
        self.answers.recv().await
    }
}

struct Worker {
    session: Option<Session>,
    connection: RedisConnection,
    who: Arc<str>,
    answers: answers::Sender<Result<Vec<Read>, Failure>>,
}

impl Worker {
    /// `None` if nobody waits for it any more.
    fn answer(&mut self, request: &Request) -> Option<Result<Vec<Read>, Failure>> {
        let mut backoff = Backoff::new();
        let mut has_warned = false;
        loop {
            let read = self.connected().and_then(|session| serve(session, request));
            let failure = match read {
                Ok(reads) => {
                    if has_warned {
                        tracing::info!(source = %self.who, "{} answers again", self.connection);
                    }
                    return Some(Ok(reads));
                }
                Err(failure) if failure.fault.can_pass => failure,
                Err(failure) => return Some(Err(failure)),
            };
            self.session = None;
            if !std::mem::replace(&mut has_warned, true) {
                let (to, cause) = (&self.connection, &failure.cause);
                tracing::warn!(source = %self.who, "{to}: {cause}; trying again");
            }
            std::thread::sleep(backoff.wait());
            if self.answers.is_closed() {
                return None;
            }
        }
    }

    fn connected(&mut self) -> Result<&Session, Failure> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.connection)?,
        };
        Ok(self.session.insert(session))
    }
}

fn serve(session: &Session, request: &Request) -> Result<Vec<Read>, Failure> {
    let reads = read(session, &request.wanted)?;
    if !request.waits || reads.iter().any(|read| !read.entries.is_empty()) {
        return Ok(reads);
    }
    wait(session, &request.wanted)?;
    read(session, &request.wanted)
}

/// Waits until one of the streams has entries, or a little.
fn wait(session: &Session, wanted: &[Wanted]) -> Result<(), Failure> {
    let after: Vec<String> = wanted.iter().map(|it| it.after.to_string()).collect();
    let front = ["XREAD", "COUNT", "1", "BLOCK"].map(str::as_bytes);
    let mut arguments = Vec::from(front);
    arguments.extend([WAIT_MS, b"STREAMS"]);
    arguments.extend(wanted.iter().map(|it| it.key.as_bytes()));
    arguments.extend(after.iter().map(String::as_bytes));
    session.ask(&arguments).map(drop)
}

fn read(session: &Session, wanted: &[Wanted]) -> Result<Vec<Read>, Failure> {
    let mut commands = Commands::default();
    for Wanted {
        key, after, count, ..
    } in wanted
    {
        let (count, after) = (count.to_string(), after.to_string());
        commands.push(&[b"MULTI"]);
        commands.push(&[
            b"XREAD",
            b"COUNT",
            count.as_bytes(),
            b"STREAMS",
            key.as_bytes(),
            after.as_bytes(),
        ]);
        commands.push(&[b"XINFO", b"STREAM", key.as_bytes()]);
        commands.push(&[b"EXEC"]);
    }
    let mut answers = session.run(&commands)?.into_iter();
    let reads = wanted.iter().map(|wanted| {
        // One that the server refuses to queue says why.
        for _ in 0..3 {
            checked(answers.next().unwrap_or(Value::Nil))?;
        }
        let executed = checked(answers.next().unwrap_or(Value::Nil))?;
        let Value::Array(executed) = executed else {
            return Err(unexpected(&executed));
        };
        let mut executed = executed.into_iter();
        let entries = executed.next().unwrap_or(Value::Nil);
        let entries = entries_of(of_stream(entries, &wanted.key)?)?;
        let state = state_of(executed.next().unwrap_or(Value::Nil), &wanted.key)?;
        Ok(Read {
            stream: wanted.stream,
            state: state.unwrap_or_default(),
            is_all: entries.len() < wanted.count,
            entries,
        })
    });
    reads.collect()
}

/// What the server says about a stream, if there is one.
pub fn look(session: &Session, key: &str) -> Result<Option<StreamState>, Failure> {
    let mut commands = Commands::default();
    commands.push(&[b"XINFO", b"STREAM", key.as_bytes()]);
    let answer = session.run(&commands)?.pop();
    state_of(answer.unwrap_or(Value::Nil), key)
}

/// The answer, unless it is an error.
fn of_stream(answer: Value, key: &str) -> Result<Value, Failure> {
    match answer {
        Value::ServerError(error) => Err(no_stream(&error, key)),
        answer => Ok(answer),
    }
}

fn no_stream(error: &ServerError, key: &str) -> Failure {
    match error.code() {
        "WRONGTYPE" => {
            let cause = format!(
                "the key `{key}` holds no stream but another kind of value: name the stream to read"
            );
            Failure::new(cause, Fault::OUTSIDE_LASTING)
        }
        _ => refused(error),
    }
}

fn state_of(answer: Value, key: &str) -> Result<Option<StreamState>, Failure> {
    let answer = match answer {
        Value::ServerError(error)
            if error
                .details()
                .is_some_and(|text| text.contains("no such key")) =>
        {
            return Ok(None);
        }
        answer => of_stream(answer, key)?,
    };
    let Value::Array(pairs) = answer else {
        return Err(unexpected(&answer));
    };
    let mut state = StreamState::default();
    let mut knows_added = false;
    let mut pairs = pairs.into_iter();
    while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
        let name = bytes(name).unwrap_or_default();
        let number = || from_redis_value(value.clone()).map_err(|_| unexpected(&value));
        match name.as_slice() {
            b"length" => state.length = number()?,
            b"entries-added" => {
                state.added = number()?;
                knows_added = true;
            }
            b"last-generated-id" => {
                let text = bytes(value).unwrap_or_default();
                let id = String::from_utf8_lossy(&text).parse();
                state.last = id.map_err(|()| unexpected(&Value::BulkString(text)))?;
            }
            b"first-entry" => state.first = Entry::of(value).map(|entry| entry.id),
            _ => {}
        }
    }
    match knows_added {
        true => Ok(Some(state)),
        false => Err(Failure::new(
            "the server does not say how many entries a stream has ever had, by which trimmed \
             ones are noticed: Redis 7.0 or later is needed",
            Fault::OUTSIDE_LASTING,
        )),
    }
}

/// The entries of the one stream that was asked for.
fn entries_of(answer: Value) -> Result<Vec<Entry>, Failure> {
    let first = |value: Value| match value {
        Value::Array(values) => Ok(values),
        value => Err(unexpected(&value)),
    };
    if answer == Value::Nil {
        return Ok(Vec::new());
    }
    let stream = first(answer)?.into_iter().next().unwrap_or(Value::Nil);
    let entries = first(stream)?.into_iter().nth(1).unwrap_or(Value::Nil);
    let entries = first(entries)?.into_iter();
    let entries = entries.map(|entry| Entry::of(entry).ok_or_else(|| unexpected(&Value::Nil)));
    entries.collect()
}

fn unexpected(answer: &Value) -> Failure {
    let mut shown = format!("{answer:?}");
    truncate(&mut shown, SHOWN_BYTES_MAX);
    let cause = format!("the server has answered what no stream is read by: {shown}");
    Failure::new(cause, Fault::OUTSIDE_LASTING)
}
