//! Accepts connections, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener as HttpListener;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::server::TlsStream;

use crate::file_stamp::FileStamp;

/// How long a client may take to agree on encryption, and how many may do so at a time.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HANDSHAKES_MAX: usize = 1024;
/// How long to wait after connections cannot be accepted, as where too many are open.
const PAUSE: Duration = Duration::from_millis(100);

/// The address that a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Hands out connections whose clients have agreed on encryption, where there is any.
pub struct Listener {
    connections: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

impl Listener {
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> io::Result<Listener> {
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(1);
        tokio::spawn(accept(listener, tls, sender));
        Ok(Listener {
            connections,
            address,
        })
    }
}

impl HttpListener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.connections.recv().await {
            Some(accepted) => accepted,
            // Accepting ends with the listener alone.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    mut tls: Option<Tls>,
    accepted: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = accepted.closed() => return,
        };
        let (stream, peer) = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!("a connection cannot be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(tls) = &mut tls else {
            if accepted
                .send((Connection::Plain(stream), peer))
                .await
                .is_err()
            {
                return;
            }
            continue;
        };
        let Ok(permit) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let acceptor = tls.acceptor();
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let agreed = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
            drop(permit);
            match agreed {
                Ok(Ok(stream)) => {
                    // Whoever answers may have ended.
                    let _ = accepted
                        .send((Connection::Tls(Box::new(stream)), peer))
                        .await;
                }
                Ok(Err(error)) => tracing::debug!("{peer} does not agree on encryption: {error}"),
                Err(_) => tracing::debug!("{peer} does not agree on encryption in time"),
            }
        });
    }
}

/// A certificate and its key, as they are in their files now: certificates are renewed
/// while the host runs.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    stamps: Stamps,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub fn open(certificate: &Path, key: &Path) -> io::Result<Tls> {
        Ok(Tls {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            stamps: stamps(certificate, key),
            acceptor: read(certificate, key)?,
        })
    }

    fn acceptor(&mut self) -> TlsAcceptor {
        let now = stamps(&self.certificate, &self.key);
        if now != self.stamps {
            match read(&self.certificate, &self.key) {
                Ok(acceptor) => {
                    self.acceptor = acceptor;
                    self.stamps = now;
                }
                // One of the two files may not be written yet.
                Err(error) => tracing::warn!("the certificate stays as it is: {error}"),
            }
        }
        self.acceptor.clone()
    }
}

/// Of the certificate and of the key.
type Stamps = [Option<FileStamp>; 2];

fn stamps(certificate: &Path, key: &Path) -> Stamps {
    [certificate, key].map(FileStamp::of)
}

fn read(certificate: &Path, key: &Path) -> io::Result<TlsAcceptor> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| {
        io::Error::other(format!("{}: {why}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"there is no certificate in it, as PEM"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A client's connection.
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Connection::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Connection::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(context),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
