//! Commits by `MULTI` and `EXEC`: the commands of all Redis sinks of a pipeline are executed
//! together with the one that notes the checkpoint's number, or none of them is.
//!
//! The number is in the hash `sluicebox:PIPELINE`, with the epoch of the run. The next run
//! raises the epoch, and since each transaction watches this key, one of an earlier run is
//! not executed any more ([why](../../../../docs/decisions/0029-redis.md)).

use std::any::Any;
use std::sync::Arc;

use redis::{Value, from_redis_value};

use super::command::OWN_KEYS;
use super::{Commands, Failure, RedisConnection, Session, checked, refused};
use crate::blame::Fault;
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::transaction::{Participant, TransactionError};
use crate::connector::server::Fenced;
use crate::element::CheckpointId;
use crate::sink::CommitContext;
use crate::stop::Stop;

pub struct RedisTransaction {
    fenced: Fenced<Session>,
    connection: RedisConnection,
}

impl RedisTransaction {
    pub fn new(connection: &RedisConnection, pipeline: &CommitContext<'_>) -> Self {
        RedisTransaction {
            fenced: Fenced::new(pipeline, connection),
            connection: connection.clone(),
        }
    }

    /// The connection whose transaction takes the commands.
    pub fn session(&self) -> Result<Arc<Session>, TransactionError> {
        self.fenced.session()
    }

    /// The key of the epoch and the number.
    fn key(&self) -> String {
        format!("{OWN_KEYS}{}", self.fenced.pipeline)
    }

    fn failed(&self, step: &str, failure: Failure) -> TransactionError {
        self.fenced.failed(step, failure.cause, failure.fault)
    }

    /// Raises the epoch, and reads what was committed under those before.
    fn raise(&self, session: &Session) -> Result<(i64, Option<u64>), Failure> {
        // A user may be denied this; then nobody knows.
        if let Ok(Value::Array(policy)) = session.ask(&[b"CONFIG", b"GET", b"maxmemory-policy"])
            && let Some(Value::BulkString(policy)) = policy.get(1)
            && policy.starts_with(b"allkeys")
        {
            let cause = format!(
                "the server's `maxmemory-policy` is `{}`, so that it may forget which checkpoint \
                 was committed: use `noeviction` or one that begins with `volatile`, or write \
                 `delivery = \"at_least_once\"` in [checkpoints]",
                String::from_utf8_lossy(policy)
            );
            return Err(Failure::new(cause, Fault::OUTSIDE_LASTING));
        }
        let key = self.key();
        let epoch = session.ask(&[b"HINCRBY", key.as_bytes(), b"epoch", b"1"])?;
        let checkpoint = session.ask(&[b"HGET", key.as_bytes(), b"checkpoint"])?;
        let foreign = |_| {
            let cause = format!("the key `{key}` has what no run has written");
            Failure::new(cause, Fault::OUTSIDE_LASTING)
        };
        let epoch = from_redis_value(epoch).map_err(foreign)?;
        let checkpoint = from_redis_value(checkpoint).map_err(foreign)?;
        Ok((epoch, checkpoint))
    }
}

impl Participant for RedisTransaction {
    fn name(&self) -> &str {
        "redis"
    }

    fn fence(&self, _: &Stop) -> Result<Option<CheckpointId>, TransactionError> {
        self.fenced.close();
        let session = Session::open(&self.connection)
            .map_err(|failure| self.failed("cannot connect to", failure))?;
        let step = "cannot read the last committed checkpoint on";
        let raised = self.raise(&session);
        let (epoch, checkpoint) = raised.map_err(|failure| self.failed(step, failure))?;
        self.fenced.open(session, epoch);
        Ok(checkpoint)
    }

    fn begin(&self) -> Result<(), TransactionError> {
        let step = "cannot begin a transaction on";
        let open = self.fenced.current()?;
        let key = self.key();
        let begun = || {
            // Read behind WATCH: who raises the epoch later is noticed by it.
            open.session.ask(&[b"WATCH", key.as_bytes()])?;
            let epoch = open.session.ask(&[b"HGET", key.as_bytes(), b"epoch"])?;
            let is_current = from_redis_value::<i64>(epoch).is_ok_and(|it| it == open.epoch);
            if is_current {
                open.session.ask(&[b"MULTI"])?;
            }
            Ok::<_, Failure>(is_current)
        };
        match begun().map_err(|failure| self.failed(step, failure))? {
            true => Ok(()),
            false => Err(self.overtaken(&open.session, step)),
        }
    }

    /// Sinks have waited at the barrier until the server has queued their commands.
    fn prepare(&self, _: CheckpointId) -> Result<(), TransactionError> {
        Ok(())
    }

    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        let step = "cannot commit the transaction on";
        let open = self.fenced.current()?;
        crash::point(Place::OffsetsBefore);
        let (key, id) = (self.key(), manifest.id.to_string());
        let mut note = Commands::default();
        note.push(&[b"HSET", key.as_bytes(), b"checkpoint", id.as_bytes()]);
        let noted = open.session.run(&note).and_then(queued);
        noted.map_err(|failure| self.failed(step, failure))?;
        crash::point(Place::OffsetsAfter);
        crash::point(Place::CommitBefore);
        let mut execute = Commands::default();
        execute.push(&[b"EXEC"]);
        let answer = open.session.run(&execute);
        let mut answer = answer.map_err(|failure| self.failed(step, failure))?;
        match answer.pop() {
            None | Some(Value::Nil) => return Err(self.overtaken(&open.session, step)),
            Some(Value::Array(answers)) => self.check(&answers)?,
            Some(answer) => {
                // None was executed.
                let failure = match checked(answer) {
                    Err(failure) => failure,
                    Ok(answer) => unexpected(&answer),
                };
                return Err(self.failed(step, failure));
            }
        }
        crash::point(Place::CommitAfter);
        Ok(())
    }

    /// Does nothing: the fence has ended the connection with the open transaction.
    fn abort(&self) -> Result<(), TransactionError> {
        Ok(())
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl RedisTransaction {
    /// Why what is watched is not what it was.
    fn overtaken(&self, session: &Session, step: &str) -> TransactionError {
        let key = self.key();
        match session.ask(&[b"HGET", key.as_bytes(), b"epoch"]) {
            Ok(Value::Nil) => {
                let cause = format!(
                    "the key `{key}`, which has the number of the last checkpoint, was deleted: \
                     perhaps the server was emptied"
                );
                self.failed(step, Failure::new(cause, Fault::OUTSIDE))
            }
            _ => self.fenced.is_fenced(step),
        }
    }

    /// Redis executes the other commands of a transaction where one of them fails.
    fn check(&self, answers: &[Value]) -> Result<(), TransactionError> {
        let failed = answers.iter().filter_map(|answer| match answer {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        let Some(first) = failed.first() else {
            return Ok(());
        };
        let failure = refused(first);
        let cause = format!(
            "{} of {} commands had no effect, while the others are committed, and their rows do \
             not come again unless the run goes back (`--from`): {}",
            failed.len(),
            answers.len(),
            failure.cause
        );
        let step = "the transaction is committed in part on";
        Err(self.failed(step, Failure::new(cause, failure.fault)))
    }
}

/// Checks that the server has taken commands of a transaction.
pub fn queued(answers: Vec<Value>) -> Result<(), Failure> {
    for answer in answers {
        match answer {
            Value::SimpleString(said) if said == "QUEUED" => {}
            answer => {
                return Err(unexpected(&checked(answer)?));
            }
        }
    }
    Ok(())
}

fn unexpected(answer: &Value) -> Failure {
    let cause = format!("the server has answered a transaction by {answer:?}");
    Failure::new(cause, Fault::OUTSIDE)
}
