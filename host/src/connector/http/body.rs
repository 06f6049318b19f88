//! Reads the bodies of requests. All that are being read have bounded room together, and one
//! that is compressed is no longer than others once it is not.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::blame::causes;
use crate::http::connections::Late;

/// How many bytes all bodies have together that are being read.
const READING_BYTES: usize = 64 << 20;

/// How long a body waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Plain,
    Gzip,
}

/// Why there is no body.
#[derive(Debug)]
pub enum BodyError {
    TooLarge,
    /// Others take all the room.
    NoRoom,
    Late,
    /// It ends too early, or is no gzip.
    Broken(String),
}

/// Room for the bodies that are being read.
pub struct Reading {
    bytes_max: usize,
    /// A permit for each KiB.
    room: Arc<Semaphore>,
}

/// What a body takes of it.
pub struct Taken {
    _room: OwnedSemaphorePermit,
}

impl Reading {
    /// `bytes_max` is for one body.
    pub fn new(bytes_max: usize) -> Self {
        Reading {
            bytes_max,
            room: Arc::new(Semaphore::new(READING_BYTES >> 10)),
        }
    }

    /// Reads a whole body, which is no longer compressed then.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Vec<u8>, Taken), BodyError> {
        let coding = coding(headers).unwrap_or(Coding::Plain);
        let said = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|length| length > self.bytes_max) {
            return Err(BodyError::TooLarge);
        }
        let mut room = self.room(0).await?;
        let mut bytes = Vec::new();
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| why(&error))?;
            let length = bytes.len() + part.len();
            if length > self.bytes_max {
                return Err(BodyError::TooLarge);
            }
            let more = length.div_ceil(1 << 10).saturating_sub(room.num_permits());
            if more > 0 {
                room.merge(self.room(more).await?);
            }
            bytes.extend_from_slice(&part);
        }
        if coding == Coding::Gzip {
            // It is as large as may be until it is known how large it is.
            let mut whole = self.room(self.bytes_max.div_ceil(1 << 10)).await?;
            bytes = gunzip(&bytes, self.bytes_max)?;
            let unused = whole.num_permits() - bytes.len().div_ceil(1 << 10);
            drop(whole.split(unused));
            room = whole;
        }
        Ok((bytes, Taken { _room: room }))
    }

    async fn room(&self, kib: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let room = self.room.clone().acquire_many_owned(kib as u32);
        match timeout(PATIENCE, room).await {
            Ok(Ok(room)) => Ok(room),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(BodyError::NoRoom),
        }
    }
}

/// How the body is written; the error is another coding.
pub fn coding(headers: &HeaderMap) -> Result<Coding, String> {
    let mut coding = Coding::Plain;
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        match value.trim() {
            "" | "identity" => {}
            "gzip" | "x-gzip" if coding == Coding::Plain => coding = Coding::Gzip,
            other => return Err(other.to_owned()),
        }
    }
    Ok(coding)
}

fn why(error: &(dyn Error + 'static)) -> BodyError {
    let mut all = std::iter::once(error).chain(causes(error));
    match all.any(|cause| cause.is::<Late>()) {
        true => BodyError::Late,
        false => BodyError::Broken(format!("the body ends too early: {error}")),
    }
}

/// Takes so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            self.is_full = true;
            return Err(io::Error::other("it is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gunzip(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut decoder = MultiGzDecoder::new(Bounded {
        bytes: Vec::new(),
        bytes_max,
        is_full: false,
    });
    let done = decoder.write_all(bytes).and_then(|()| decoder.try_finish());
    let unpacked = decoder.get_mut();
    match done {
        Ok(()) => Ok(std::mem::take(&mut unpacked.bytes)),
        Err(_) if unpacked.is_full => Err(BodyError::TooLarge),
        Err(error) => Err(BodyError::Broken(format!("the body is no gzip: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn headers(coding: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().expect("a header"));
        headers
    }

    async fn read(reading: &Reading, coding: &'static str, body: Vec<u8>) -> String {
        match reading.read(&headers(coding), Body::from(body)).await {
            Ok((bytes, _)) => format!("{} bytes", bytes.len()),
            Err(BodyError::Broken(why)) => why,
            Err(error) => format!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn a_body_is_no_longer_than_may_be() {
        let reading = Reading::new(100_000);
        assert_eq!(
            read(&reading, "", vec![b'a'; 100_000]).await,
            "100000 bytes"
        );
        assert_eq!(read(&reading, "", vec![b'a'; 100_001]).await, "TooLarge");
        let zeros = gzip(&[0; 100_000]);
        assert_eq!(read(&reading, "gzip", zeros).await, "100000 bytes");
        let bomb = gzip(&vec![0; 50_000_000]);
        assert!(bomb.len() < 100_000);
        assert_eq!(read(&reading, "gzip", bomb).await, "TooLarge");
        let two = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(read(&reading, "x-gzip", two).await, "2 bytes");
        assert_eq!(read(&reading, "gzip", Vec::new()).await, "0 bytes");
        for wrong in [b"plain text".to_vec(), gzip(b"text")[..12].to_vec()] {
            let said = read(&reading, "gzip", wrong).await;
            assert!(said.contains("no gzip"), "{said}");
        }
        assert_eq!(reading.room.available_permits(), READING_BYTES >> 10);
        assert_eq!(coding(&headers("br")), Err("br".to_owned()));
        assert_eq!(coding(&HeaderMap::new()), Ok(Coding::Plain));
    }

    #[tokio::test]
    async fn all_bodies_together_have_bounded_room() {
        let reading = Reading::new(READING_BYTES / 2);
        let body = || Body::from(vec![b'a'; READING_BYTES / 2]);
        let one = reading.read(&HeaderMap::new(), body()).await.expect("room");
        let _two = reading.read(&HeaderMap::new(), body()).await.expect("room");
        let three = reading.read(&HeaderMap::new(), body()).await;
        assert!(matches!(three, Err(BodyError::NoRoom)));
        drop(one);
        assert!(reading.read(&HeaderMap::new(), body()).await.is_ok());
    }
}
