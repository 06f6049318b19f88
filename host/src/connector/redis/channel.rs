//! Listens to channels. The server forgets a message once it has sent it: whatever is
//! published while nobody listens, or was not read when the run ends or fails, is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Msg;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::messages::{MessageOrigin, Messages, RedisColumn};
use super::{Commands, Failure, RedisConnection, Session, checked};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::connector::server::Backoff;
use crate::decode::Decoder;
use crate::format::RowFormat;
use crate::source::chunk::{Chunk, at_row};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// How many messages, and how many KiB of them, may wait for the reader; beyond that, the
/// server keeps them, up to its `client-output-buffer-limit`.
const WAITING_MAX: usize = 16_384;
const WAITING_KIB_MAX: usize = 64 << 10;

/// How often the thread looks whether anybody still listens.
const LOOK: Duration = Duration::from_millis(500);

/// After how long without a message the server is asked whether it is there, and how long it
/// may take to answer.
const SILENCE: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(10);

/// Which channels are listened to, and as which columns their messages are read.
#[derive(Clone, Debug)]
pub struct Channels {
    pub connection: RedisConnection,
    /// Channels, and patterns of them.
    pub names: Vec<String>,
    pub format: RowFormat,
    /// The columns after those of the row.
    pub metadata: Vec<RedisColumn>,
}

impl Channels {
    /// The name of the one partition.
    pub fn title(&self) -> String {
        self.names.join(", ")
    }
}

/// Whether it stands for several channels.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// A message, and its room.
struct Message {
    channel: String,
    payload: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

pub struct ChannelInput {
    name: Arc<str>,
    messages: mpsc::Receiver<Result<Message, Failure>>,
    /// The first of the next chunk.
    next: Option<Message>,
    decoder: Decoder,
    /// How many messages have come.
    rows: u64,
    room: Arc<Semaphore>,
    plan: Channels,
    context: SourceContext,
}

impl ChannelInput {
    pub async fn open(plan: &Channels, context: &SourceContext) -> Result<Self, SourceError> {
        context.check_delimiter(&plan.format.format)?;
        let refused = |failure: Failure| {
            let message = format!("cannot listen on {}: {}", plan.connection, failure.cause);
            context.refuse(message, failure.fault)
        };
        let session = Session::open(&plan.connection).map_err(refused)?;
        let columns = context.columns_in_rows(plan.metadata.len());
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        let room = Arc::new(Semaphore::new(WAITING_KIB_MAX));
        let mut listener = Listener {
            plan: plan.clone(),
            who: context.node.clone(),
            messages: sender,
            room: room.clone(),
            runtime: Handle::current(),
        };
        let (subscribed, is_subscribed) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("redis-listen".to_owned());
        let started = thread.spawn(move || listener.listen(session, subscribed));
        started.map_err(|error| {
            let message = format!("cannot start a thread: {error}");
            context.refuse(message, Fault::of_io(&error))
        })?;
        // What is published from now on comes.
        let subscribed = is_subscribed
            .await
            .map_err(|_| context.refuse("the thread that listens has ended", Fault::BUG))?;
        subscribed.map_err(refused)?;
        let name: Arc<str> = plan.title().into();
        Ok(ChannelInput {
            rows: context
                .restored(&name)
                .map_or(0, |found| found.position.offset),
            name,
            messages,
            next: None,
            decoder: Decoder::new(&plan.format, &columns),
            room,
            plan: plan.clone(),
            context: context.clone(),
        })
    }

    async fn next_chunk(&mut self) -> Result<Chunk, SourceError> {
        if self.next.is_none() {
            let message = self.messages.recv().await;
            self.next = Some(self.heard(message)?);
        }
        let rows_max = self.context.rows_max();
        let mut messages = Messages::new(&self.plan.metadata);
        while messages.has_room(rows_max) {
            let message = match self.next.take() {
                Some(message) => message,
                None => match self.messages.try_recv() {
                    Ok(message) => self.heard(Some(message))?,
                    Err(_) => break,
                },
            };
            let from = MessageOrigin {
                offset: self.rows,
                place: &message.channel,
                entry: None,
            };
            messages.push(from, |out| {
                out.extend_from_slice(&message.payload);
                Ok(())
            });
            self.rows += 1;
        }
        let (name, end) = (self.name.clone(), at_row(self.rows));
        Ok(messages.decode(&mut self.decoder, &self.context, name, end))
    }

    fn heard(&self, message: Option<Result<Message, Failure>>) -> Result<Message, SourceError> {
        let ended = || Failure::new("the thread that listens has ended", Fault::BUG);
        let message = message.unwrap_or_else(|| Err(ended()));
        message.map_err(|failure| {
            let what = self.plan.connection.to_string();
            self.context.failed(what, failure.cause, failure.fault)
        })
    }
}

impl Drop for ChannelInput {
    /// Ends the thread, if it waits for room.
    fn drop(&mut self) {
        self.room.close();
    }
}

impl SourceInput for ChannelInput {
    fn partitions(&self) -> usize {
        1
    }

    /// Its position is the number of its next message.
    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (self.name.clone(), at_row(self.rows))
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => {
                    let chunk = self.next_chunk().await?;
                    Ok(Arrival::of(partition, Some(chunk)))
                }
                None => Ok(Arrival::Over),
            }
        })
    }
}

/// The thread that listens.
struct Listener {
    plan: Channels,
    who: Arc<str>,
    messages: mpsc::Sender<Result<Message, Failure>>,
    /// A permit for each KiB that may wait.
    room: Arc<Semaphore>,
    runtime: Handle,
}

type Subscribed = tokio::sync::oneshot::Sender<Result<(), Failure>>;

impl Listener {
    /// Listens until nobody wants to hear. The first subscription is waited for; a connection
    /// that is lost later is made again.
    fn listen(&mut self, session: Session, subscribed: Subscribed) {
        let mut subscribed = Some(subscribed);
        let mut session = Some(session);
        let mut backoff = Backoff::new();
        let mut is_lost = false;
        while !self.messages.is_closed() {
            let connected = match session.take() {
                Some(session) => Ok(session),
                None => Session::open(&self.plan.connection),
            };
            let heard = connected.and_then(|session| {
                self.hear(session, || {
                    if std::mem::take(&mut is_lost) {
                        tracing::info!(source = %self.who, "{} answers again", self.plan.connection);
                    }
                    backoff.reset();
                    if let Some(subscribed) = subscribed.take() {
                        let _ = subscribed.send(Ok(()));
                    }
                })
            });
            let Err(failure) = heard else {
                return;
            };
            if let Some(subscribed) = subscribed.take() {
                let _ = subscribed.send(Err(failure));
                return;
            }
            if !failure.fault.can_pass {
                let _ = self.messages.blocking_send(Err(failure));
                return;
            }
            if !std::mem::replace(&mut is_lost, true) {
                let (to, cause) = (&self.plan.connection, &failure.cause);
                tracing::warn!(
                    source = %self.who,
                    "{to}: {cause}; trying again; messages that are published meanwhile are lost"
                );
            }
            std::thread::sleep(backoff.wait());
        }
    }

    /// Hands on messages until nobody wants to hear.
    fn hear(&self, session: Session, subscribed: impl FnOnce()) -> Result<(), Failure> {
        let mut connection = session.into_connection();
        let mut commands = Commands::default();
        for name in &self.plan.names {
            let command: &[u8] = match is_pattern(name) {
                true => b"PSUBSCRIBE",
                false => b"SUBSCRIBE",
            };
            commands.push(&[command, name.as_bytes()]);
        }
        connection.send_packed_command(&commands.packed)?;
        // Messages of one channel may come before the server has answered for the next.
        let mut confirmed = 0;
        while confirmed < commands.count {
            let answer = checked(connection.recv_response()?)?;
            match Msg::from_value(&answer) {
                None => confirmed += 1,
                Some(message) if !self.hand_on(&message) => return Ok(()),
                Some(_) => {}
            }
        }
        subscribed();
        let mut listening = connection.as_pubsub();
        listening.set_read_timeout(Some(LOOK))?;
        let mut last = Instant::now();
        loop {
            match listening.get_message() {
                Ok(message) => {
                    last = Instant::now();
                    if !self.hand_on(&message) {
                        return Ok(());
                    }
                }
                Err(error) if error.is_timeout() => {
                    if self.messages.is_closed() {
                        return Ok(());
                    }
                    if last.elapsed() > SILENCE {
                        listening.set_read_timeout(Some(PING_MAX))?;
                        listening.ping::<redis::Value>()?;
                        listening.set_read_timeout(Some(LOOK))?;
                        last = Instant::now();
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for room. Returns whether anybody wants to hear more.
    fn hand_on(&self, message: &Msg) -> bool {
        let channel = message.get_channel_name().to_owned();
        let payload = message.get_payload_bytes().to_vec();
        let kib = (channel.len() + payload.len()).div_ceil(1 << 10);
        let kib = kib.clamp(1, WAITING_KIB_MAX) as u32;
        let room = self.room.clone().acquire_many_owned(kib);
        let Ok(room) = self.runtime.block_on(room) else {
            return false;
        };
        let message = Message {
            channel,
            payload,
            _room: room,
        };
        self.messages.blocking_send(Ok(message)).is_ok()
    }
}
