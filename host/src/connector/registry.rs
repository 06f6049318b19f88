//! Lists all connectors that a pipeline's file can name.

use super::{blackhole, console, file, generator, http, kafka, postgres, redis, tcp, udp};
use crate::sink::SinkKind;
use crate::source::SourceKind;

/// The kinds of sources and sinks that `type` can name, in the order of
/// messages.
#[derive(Clone, Copy)]
pub struct Registry<'a> {
    pub sources: &'a [SourceKind],
    pub sinks: &'a [SinkKind],
}

pub const CONNECTORS: Registry = Registry {
    sources: &[
        file::source::KIND,
        tcp::KIND,
        udp::KIND,
        http::source::KIND,
        generator::KIND,
        kafka::source::KIND,
        redis::source::KIND,
        postgres::source::KIND,
    ],
    sinks: &[
        file::sink::KIND,
        console::KIND,
        blackhole::KIND,
        kafka::sink::KIND,
        postgres::sink::KIND,
        redis::sink::KIND,
        http::sink::KIND,
        tcp::sink::KIND,
    ],
};
