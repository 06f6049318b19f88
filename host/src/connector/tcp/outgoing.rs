//! A connection to a server, encrypted or not.
//!
//! What was written to a connection may be lost with it, and nothing says what the server
//! has read. Its end does: a server that has read to the end of what it gets closes its own
//! side in good order, while the system of one that is gone, or has not read everything,
//! resets the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use native_tls::{HandshakeError, TlsConnector, TlsStream};

use crate::connector::server::Server;

/// How long it may take to connect, and until the server reads more.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const WRITE_MAX: Duration = Duration::from_secs(60);

/// How long the server may take to read the rest, and to close its side.
const CLOSE_MAX: Duration = Duration::from_secs(30);

pub struct Outgoing {
    stream: Stream,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Outgoing {
    pub fn connect(server: &Server, tls: bool) -> io::Result<Outgoing> {
        let mut last = io::Error::new(ErrorKind::NotFound, "no address is found by that name");
        for address in (server.host.as_str(), server.port).to_socket_addrs()? {
            let stream = match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(WRITE_MAX))?;
            stream.set_read_timeout(Some(CONNECT_MAX))?;
            let stream = match tls {
                false => Stream::Plain(stream),
                true => Stream::Tls(Box::new(encrypted(stream, &server.host)?)),
            };
            return Ok(Outgoing { stream });
        }
        Err(last)
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_open()?;
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// An error if the server has closed its side: it reads no more.
    fn check_open(&self) -> io::Result<()> {
        let socket = self.socket();
        socket.set_nonblocking(true)?;
        let peeked = socket.peek(&mut [0]);
        socket.set_nonblocking(false)?;
        match peeked {
            Ok(0) => Err(closed()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says that no more comes, and waits until the server has read everything, and says so
    /// by closing its own side.
    pub fn close(mut self) -> io::Result<()> {
        self.check_open()?;
        if let Stream::Tls(stream) = &mut self.stream {
            stream.shutdown()?;
        }
        let mut socket = self.socket();
        socket.shutdown(Shutdown::Write)?;
        socket.set_read_timeout(Some(CLOSE_MAX))?;
        let until = Instant::now() + CLOSE_MAX;
        // What the server says is of no meaning here.
        let mut said = [0; 4096];
        while Instant::now() < until {
            match socket.read(&mut said) {
                Ok(0) => return self.check_taken(until),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let cause = format!(
            "the server has not closed the connection within {} s after its end, so nobody \
             knows whether it has read everything",
            CLOSE_MAX.as_secs()
        );
        Err(io::Error::new(ErrorKind::TimedOut, cause))
    }

    /// Waits until the other system has taken everything: the server may have closed its side
    /// just before the last of it came, which that system refuses then.
    fn check_taken(&self, until: Instant) -> io::Result<()> {
        let socket = self.socket();
        loop {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            let mut bytes: libc::c_int = 0;
            // SAFETY: the socket is open, and the system writes one number.
            let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
            if asked != 0 {
                return Err(io::Error::last_os_error());
            }
            if bytes == 0 {
                // Refused bytes are none that wait, either.
                return match socket.take_error()? {
                    Some(error) => Err(error),
                    None => Ok(()),
                };
            }
            if Instant::now() > until {
                return Err(closed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn encrypted(stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::new().map_err(io::Error::other)?;
    connector
        .connect(host, stream)
        .map_err(|error| match error {
            HandshakeError::Failure(error) => io::Error::new(ErrorKind::InvalidData, error),
            HandshakeError::WouldBlock(_) => {
                io::Error::new(ErrorKind::TimedOut, "the server does not speak TLS in time")
            }
        })
}

fn closed() -> io::Error {
    let cause = "the server has closed the connection before it had read everything";
    io::Error::new(ErrorKind::ConnectionAborted, cause)
}
