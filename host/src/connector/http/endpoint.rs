//! Where clients post, and what they are promised.

use std::path::PathBuf;
use std::time::Duration;

use super::queue::{Acknowledge, Room};
use super::repeats::Memory;
use crate::connector::server::Password;
use crate::format::RowFormat;

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub listen: String,
    pub path: String,
    pub acknowledge: Acknowledge,
    pub token: Option<Password>,
    pub tls: Option<TlsFiles>,
    pub format: RowFormat,
    pub body_bytes_max: usize,
    pub room: Room,
    pub answer_within: Duration,
    pub memory: Memory,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}
