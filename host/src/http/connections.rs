//! Answers HTTP on connections, for as long as their clients send requests: one that sends
//! none, or not all of a request, has its connection for a limited time only.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::serve::Listener as _;
use axum::{BoxError, Router};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

use super::listener::{Connection, Listener, Peer};
use crate::stop::Stop;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long the head of a request may take, the wait for it on a connection that is open,
    /// and the wait for more of a body.
    pub head_max: Duration,
    /// How many connections are open at a time; others wait to be taken.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_max: Duration::from_secs(30),
            connections_max: usize::MAX,
        }
    }
}

/// As often as that, a whole body may take the time of a head: ten minutes, in which a large
/// plugin comes over a slow line.
const BODY_HEADS: u32 = 20;

/// Answers requests until it is asked to stop, and then those that were begun.
pub async fn serve(mut listener: Listener, router: Router, stop: &Stop, limits: Limits) {
    let mut open = JoinSet::new();
    loop {
        let (connection, peer) = tokio::select! {
            accepted = listener.accept(), if open.len() < limits.connections_max => accepted,
            Some(_) = open.join_next() => continue,
            () = stop.wait() => break,
        };
        open.spawn(answer(
            connection,
            peer,
            router.clone(),
            stop.clone(),
            limits.head_max,
        ));
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn answer(
    connection: Connection,
    peer: SocketAddr,
    router: Router,
    stop: Stop,
    head_max: Duration,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(Peer(peer)));
        router.call(request.map(|body| Timely::new(body, head_max)))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_max);
    let mut served = pin!(http.serve_connection(TokioIo::new(connection), service));
    let served = tokio::select! {
        served = served.as_mut() => served,
        () = stop.wait() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("{peer}: {error}");
    }
}

/// A client has stopped sending, or sends too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body does not come in time")]
pub struct Late;

/// A body that has to come in time.
struct Timely<B> {
    body: B,
    part_max: Duration,
    /// When all of it has to be there.
    end: Instant,
    /// Until when the next part has to come, while it is waited for.
    wait: Option<Pin<Box<Sleep>>>,
}

impl<B> Timely<B> {
    fn new(body: B, part_max: Duration) -> Self {
        Timely {
            body,
            part_max,
            end: Instant::now() + part_max * BODY_HEADS,
            wait: None,
        }
    }
}

impl<B: Body + Unpin> Body for Timely<B>
where
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.wait = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = (Instant::now() + this.part_max).min(this.end);
        let wait = this
            .wait
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(wait.as_mut().poll(context));
        Poll::Ready(Some(Err(Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use hyper::body::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::*;

    const HEAD: Duration = Duration::from_millis(300);
    const LIMITS: Limits = Limits {
        head_max: HEAD,
        connections_max: 8,
    };
    const LONG: Duration = Duration::from_secs(20);

    async fn slow(ConnectInfo(Peer(peer)): ConnectInfo<Peer>) -> String {
        sleep(3 * HEAD).await;
        format!("from {}", peer.ip())
    }

    async fn begin(stop: &Stop) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let listener = Listener::new(listener, None).expect("it is bound");
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/slow", get(slow))
            .route(
                "/body",
                post(async |body: Bytes| format!("{} bytes", body.len())),
            );
        let stop = stop.clone();
        tokio::spawn(async move { serve(listener, router, &stop, LIMITS).await });
        address
    }

    /// What comes until the connection is closed, and how long that takes.
    async fn rest(stream: &mut TcpStream) -> (String, Duration) {
        let began = Instant::now();
        let mut text = String::new();
        let read = timeout(LONG, stream.read_to_string(&mut text)).await;
        let _ = read.expect("the connection is closed");
        (text, began.elapsed())
    }

    #[tokio::test]
    async fn a_client_that_sends_no_whole_request_is_not_waited_for() {
        let address = begin(&Stop::default()).await;
        for begun in ["", "GET / HTTP/1.1\r\nHost: here\r\n"] {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream
                .write_all(begun.as_bytes())
                .await
                .expect("it is open");
            let (_, took) = rest(&mut stream).await;
            assert!((HEAD / 2..LONG / 2).contains(&took), "{begun}: {took:?}");
        }
        // A byte now and then does not help.
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let began = Instant::now();
        let drip = async {
            while stream.write_all(b"G").await.is_ok() {
                sleep(HEAD / 10).await;
            }
        };
        timeout(LONG, drip).await.expect("the connection is closed");
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
        // One that has had an answer has the same time for its next request.
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
        for _ in 0..3 {
            stream
                .write_all(request.as_bytes())
                .await
                .expect("it is open");
            sleep(HEAD / 3).await;
        }
        let (text, took) = rest(&mut stream).await;
        assert_eq!(text.matches("200 OK").count(), 3, "{text}");
        assert!((HEAD / 2..LONG / 2).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let address = begin(&Stop::default()).await;
        let begin = async |length: usize| {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let head =
                format!("POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
            let sent = stream.write_all(head.as_bytes()).await;
            sent.expect("it is open");
            stream
        };
        let mut stream = begin(10).await;
        stream.write_all(b"some").await.expect("it is open");
        let (text, took) = rest(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
        assert!((HEAD / 2..LONG / 2).contains(&took), "{took:?}");
        // It comes slowly, but it comes.
        let mut stream = begin(10).await;
        for _ in 0..10 {
            sleep(HEAD / 3).await;
            stream.write_all(b"a").await.expect("it is open");
        }
        let (text, _) = rest(&mut stream).await;
        assert!(text.contains("10 bytes"), "{text}");
        // A byte now and then does not help for ever.
        let mut stream = begin(1_000_000).await;
        let began = Instant::now();
        let drip = async {
            while stream.write_all(b"a").await.is_ok() {
                sleep(HEAD / 3).await;
            }
        };
        timeout(LONG, drip).await.expect("the connection is closed");
        assert!(began.elapsed() > HEAD * BODY_HEADS / 2);
    }

    #[tokio::test]
    async fn a_request_that_was_begun_is_answered_when_the_service_stops() {
        let stop = Stop::default();
        let address = begin(&stop).await;
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = "GET /slow HTTP/1.1\r\nHost: here\r\n\r\n";
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is open");
        sleep(HEAD / 3).await;
        stop.ask();
        let (text, _) = rest(&mut stream).await;
        assert!(text.ends_with("from 127.0.0.1"), "{text}");
        assert!(TcpStream::connect(address).await.is_err(), "it has ended");
    }
}
