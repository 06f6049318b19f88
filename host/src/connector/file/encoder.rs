//! Compresses what is written to a file, in pieces that can be read by
//! themselves: gzip's members, zstd's frames. Readers take pieces that follow one
//! another as one text, so a file can be cut between two of them and go on.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::opened::Compression;

/// Compresses text, and hands over the bytes as they come.
pub(super) struct Encoder {
    compression: Compression,
    /// The piece being written. `None` until there is something in it.
    piece: Option<Piece>,
    /// Something was written since the last flush.
    is_dirty: bool,
}

enum Piece {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub fn new(compression: Compression) -> Self {
        Encoder {
            compression,
            piece: None,
            is_dirty: false,
        }
    }

    /// Whether the current piece has nothing yet.
    pub fn is_empty(&self) -> bool {
        self.piece.is_none()
    }

    /// Compresses text. Part of it may stay here until there is more.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.is_dirty = true;
        self.begin()?.write_all(text)
    }

    /// Has everything written so far be in the [`Encoder::output`], for readers who
    /// do not wait for the end of the piece.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.piece {
            Some(piece) if std::mem::take(&mut self.is_dirty) => piece.flush(),
            _ => Ok(()),
        }
    }

    /// The bytes that are ready to be written, to be taken from there.
    pub fn output(&mut self) -> Option<&mut Vec<u8>> {
        Some(match self.piece.as_mut()? {
            Piece::Plain(bytes) => bytes,
            Piece::Gzip(encoder) => encoder.get_mut(),
            Piece::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// Ends the current piece, if there is one, and returns its last bytes.
    pub fn end(&mut self) -> io::Result<Vec<u8>> {
        self.is_dirty = false;
        match self.piece.take() {
            None => Ok(Vec::new()),
            Some(Piece::Plain(bytes)) => Ok(bytes),
            Some(Piece::Gzip(encoder)) => encoder.finish(),
            Some(Piece::Zstd(encoder)) => encoder.finish(),
        }
    }

    /// Begins a piece, unless one is being written.
    pub fn begin(&mut self) -> io::Result<&mut dyn Write> {
        let piece = match &mut self.piece {
            Some(piece) => piece,
            none => none.insert(Piece::new(self.compression)?),
        };
        Ok(match piece {
            Piece::Plain(bytes) => bytes,
            Piece::Gzip(encoder) => encoder,
            Piece::Zstd(encoder) => encoder,
        })
    }
}

impl Piece {
    fn new(compression: Compression) -> io::Result<Self> {
        let bytes = Vec::new();
        Ok(match compression {
            Compression::None => Piece::Plain(bytes),
            Compression::Gzip => Piece::Gzip(GzEncoder::new(bytes, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(bytes, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                Piece::Zstd(encoder)
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Piece::Plain(_) => Ok(()),
            Piece::Gzip(encoder) => encoder.flush(),
            Piece::Zstd(encoder) => encoder.flush(),
        }
    }
}
