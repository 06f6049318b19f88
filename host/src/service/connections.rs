//! Answers HTTP on connections, for as long as their clients send requests: one that sends
//! none, or not all of a request's head, has its connection for a limited time only.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;

use super::listener::{Connection, Listener, Peer};
use crate::stop::Stop;

/// How long the head of a request may take, and the wait for it on a connection that is
/// open.
pub const HEAD_MAX: Duration = Duration::from_secs(30);

/// Answers requests until it is asked to stop, and then those that were begun.
pub async fn serve(mut listener: Listener, router: Router, stop: &Stop, head_max: Duration) {
    let mut open = JoinSet::new();
    loop {
        let (connection, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = stop.wait() => break,
        };
        open.spawn(answer(
            connection,
            peer,
            router.clone(),
            stop.clone(),
            head_max,
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
        router.call(request)
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const HEAD: Duration = Duration::from_millis(300);
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
            .route("/slow", get(slow));
        let stop = stop.clone();
        tokio::spawn(async move { serve(listener, router, &stop, HEAD).await });
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
