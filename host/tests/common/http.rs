//! Both ends of HTTP: a client that posts, and a server that is posted to and answers as a
//! test wants it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::waiting::WAIT;

/// The first line and the headers of a message, and its body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub head: String,
    pub body: String,
    /// When it came, of a request.
    pub at: Option<Instant>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }

    /// Of an answer.
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|it| it.parse().ok());
        status.unwrap_or_else(|| panic!("no answer: {self:?}"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn read(from: &mut impl BufRead) -> io::Result<Option<Message>> {
        let mut message = Message::default();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if line.trim().is_empty() {
                break;
            }
            message.head.push_str(&line);
        }
        let length = message.header("content-length").unwrap_or("0").parse();
        let mut body = vec![0; length.map_err(io::Error::other)?];
        from.read_exact(&mut body)?;
        message.body = String::from_utf8_lossy(&body).into_owned();
        message.at = Some(Instant::now());
        Ok(Some(message))
    }
}

/// Posts a body, and returns the answer.
pub fn post(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> io::Result<Message> {
    let body = body.as_ref();
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    ask(address, &[request.as_bytes(), body].concat())
}

/// Sends these bytes, and returns the answer.
pub fn ask(address: &str, request: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(request)?;
    let answer = Message::read(&mut BufReader::new(stream))?;
    answer.ok_or_else(|| io::Error::other("it was closed without an answer"))
}

/// How a server answers a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With this status, these lines of headers, and this body.
    Status(u16, &'static str, &'static str),
    /// With 200, so much later.
    Late(Duration),
    /// With what is no HTTP.
    Rubbish,
    /// The connection is closed.
    Close,
}

pub const GOOD: Reply = Reply::Status(200, "", "");

/// A server that is posted to.
pub struct Receiver {
    pub address: String,
    shared: Arc<Shared>,
}

/// What is answered to a request, by its number.
type Replies = dyn Fn(usize, &Message) -> Reply + Send + Sync;

struct Shared {
    reply: Box<Replies>,
    posted: Mutex<Vec<Message>>,
    is_down: AtomicBool,
    answering: AtomicUsize,
    answering_max: AtomicUsize,
}

impl Receiver {
    /// `reply` gets the number of the request, from 0.
    pub fn start(reply: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            posted: Mutex::default(),
            is_down: AtomicBool::new(false),
            answering: AtomicUsize::new(0),
            answering_max: AtomicUsize::new(0),
        });
        let of_threads = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_threads.clone();
                // A client that is killed breaks its connections.
                std::thread::spawn(move || drop(shared.answer(&stream)));
            }
        });
        Receiver { address, shared }
    }

    /// Whether connections are closed without an answer.
    pub fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::SeqCst);
    }

    /// All that was posted so far.
    pub fn posted(&self) -> MutexGuard<'_, Vec<Message>> {
        let posted = self.shared.posted.lock();
        posted.unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests were answered at a time, at most.
    pub fn answering_max(&self) -> usize {
        self.shared.answering_max.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        let mut from = BufReader::new(stream);
        while let Some(message) = Message::read(&mut from)? {
            if self.is_down.load(Ordering::SeqCst) {
                return stream.shutdown(Shutdown::Both);
            }
            let answering = self.answering.fetch_add(1, Ordering::SeqCst) + 1;
            self.answering_max.fetch_max(answering, Ordering::SeqCst);
            let number = {
                let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
                posted.push(message.clone());
                posted.len() - 1
            };
            let replied = self.reply(stream, (self.reply)(number, &message));
            self.answering.fetch_sub(1, Ordering::SeqCst);
            if !replied? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns whether the connection stays.
    fn reply(&self, mut stream: &TcpStream, reply: Reply) -> io::Result<bool> {
        let answer = match reply {
            Reply::Close => {
                stream.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
            Reply::Rubbish => {
                stream.write_all(b"\x00\x01 no HTTP\r\n\r\n")?;
                stream.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
            Reply::Late(time) => {
                std::thread::sleep(time);
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            Reply::Status(status, headers, body) => format!(
                "HTTP/1.1 {status} As Wanted\r\n{headers}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        stream.write_all(answer.as_bytes())?;
        Ok(true)
    }
}
