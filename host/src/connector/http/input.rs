//! Takes what was posted into the pipeline. The path is the one partition; offsets count rows
//! in the order in which they were taken.
//!
//! Requests are answered on a thread of their own, so that rows are cut beside the pipeline's
//! work, and the last answers are sent before the input is gone.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

use super::answers::{Reception, router};
use super::body::Reading;
use super::endpoint::Endpoint;
use super::queue::{Acknowledge, Queue};
use super::repeats::Repeats;
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::connector::listen;
use crate::decode::Decoder;
use crate::descriptors;
use crate::http::connections::{Limits, serve};
use crate::http::listener::{Listener, Tls};
use crate::offload::blocking;
use crate::source::chunk::{BadRow, Chunk};
use crate::source::pieces::{PieceChunks, RowCutter};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};
use crate::stop::Stop;

/// How many connections are open at a time, fewer where the process may not have as many;
/// others wait to be taken.
const CONNECTIONS_MAX: usize = 1_024;

/// How long the last answers may take when the input ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

pub struct HttpInput {
    address: SocketAddr,
    queue: Arc<Queue>,
    chunks: PieceChunks,
    acknowledge: Acknowledge,
    /// Sends the last answers when it is dropped.
    server: Option<Server>,
}

impl HttpInput {
    pub async fn open(plan: &Endpoint, context: &SourceContext) -> Result<Self, SourceError> {
        context.check_delimiter(&plan.format.format)?;
        let tls = plan.tls.as_ref().map(|tls| {
            let opened = Tls::open(&tls.certificate, &tls.key);
            opened.map_err(|error| context.refuse(error.to_string(), Fault::of_io(&error)))
        });
        let tls = tls.transpose()?;
        // A run that makes none can wait for none.
        let acknowledge = match context.is_checkpointed {
            true => plan.acknowledge,
            false => Acknowledge::Taken,
        };
        let (memory, now_ms) = (plan.memory, context.clock.now_ms());
        let kept = context.restored(&plan.path);
        let kept = kept.and_then(|partition| partition.kept.as_deref());
        let repeats = match kept {
            None => Repeats::new(memory),
            Some(kept) => Repeats::restore(memory, kept, now_ms).ok_or_else(|| {
                let message = format!(
                    "the checkpoint has keys of requests that cannot be read; {}",
                    context.beginning_anew()
                );
                context.refuse(message, Fault::OUTSIDE_LASTING)
            })?,
        };
        let chunks = PieceChunks::new(
            plan.path.as_str().into(),
            Decoder::new(&plan.format, &context.schema),
            context,
        );
        let position = chunks.position().offset;
        let queue = Queue::new(
            acknowledge,
            plan.room,
            repeats,
            position,
            context.clock.clone(),
        );
        let queue = Arc::new(queue);
        let (listener, address) = listen::bind(&plan.listen, context).await?;
        let reception = Reception {
            queue: queue.clone(),
            acknowledge,
            token: plan.token.clone(),
            format: plan.format.format.clone(),
            cutter: RowCutter::new(
                &plan.format.format,
                Some(context.schema.fields.len()),
                &context.schema,
            ),
            body_bytes_max: plan.body_bytes_max,
            rows_max: plan.room.rows_max,
            reading: Reading::new(plan.body_bytes_max),
            answer_within: plan.answer_within,
            stop: context.stop.clone(),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = listener
            .into_std()
            .and_then(|listener| Server::start(listener, tls, router(&plan.path, reception)));
        let server = server.map_err(|error| {
            let message = format!("cannot answer on {address}: {error}");
            context.refuse(message, Fault::of_io(&error))
        })?;
        let path = &plan.path;
        tracing::info!(source = %context.node, "listening on {scheme}://{address}{path}");
        Ok(HttpInput {
            address,
            queue,
            chunks,
            acknowledge,
            server: Some(server),
        })
    }

    async fn next_chunk(&mut self) -> Chunk {
        // The task has taken what it got before.
        self.queue.taken(self.chunks.position().offset);
        loop {
            if let Some(first) = self.chunks.left().or_else(|| self.queue.take()) {
                let queue = &self.queue;
                let chunk = self.chunks.chunk(first, || queue.take());
                self.queue.handed_out(chunk.end.offset);
                return chunk;
            }
            self.queue.arrived().await;
        }
    }
}

impl Drop for HttpInput {
    fn drop(&mut self) {
        self.queue.close();
        drop(self.server.take());
    }
}

impl SourceInput for HttpInput {
    fn partitions(&self) -> usize {
        1
    }

    /// Its position is the number of its next row.
    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (self.chunks.partition.clone(), self.chunks.position())
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => Ok(Arrival::of(partition, Some(self.next_chunk().await))),
                None => Ok(Arrival::Over),
            }
        })
    }

    fn kept(&self, _: usize, position: Position) -> Option<String> {
        self.queue.kept(position.offset)
    }

    fn bad(&mut self, _: usize, bad: &[BadRow]) {
        self.queue.bad(bad);
    }

    fn wants_commits(&self) -> bool {
        self.acknowledge == Acknowledge::Checkpoint
    }

    fn committed(&mut self, positions: &[(Arc<str>, Position)]) {
        if let Some((_, position)) = positions.first() {
            self.queue.committed(position.offset);
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}

/// Answers requests on a thread of its own. When it is dropped, it takes no more, and waits
/// for the answers to those that are there.
struct Server {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(listener: StdListener, tls: Option<Tls>, router: Router) -> io::Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            Listener::new(TcpListener::from_std(listener)?, tls)?
        };
        let stop = Stop::default();
        let stopped = stop.clone();
        let limits = Limits {
            connections_max: descriptors::share(CONNECTIONS_MAX, 1),
            ..Limits::default()
        };
        let thread = Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, router, &stopped, limits) => {}
                    // Whoever does not read an answer does not hold up the end.
                    () = async {
                        stopped.wait().await;
                        tokio::time::sleep(LAST_ANSWERS).await;
                    } => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Server {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            // A panic there was told when it happened.
            let _ = blocking(|| thread.join());
        }
    }
}
