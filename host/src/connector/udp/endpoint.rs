//! Where datagrams come, and what they have.

use crate::format::RowFormat;

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub listen: String,
    pub framing: DatagramFraming,
    pub format: RowFormat,
    /// How many bytes of datagrams the system keeps for the source.
    pub receive_buffer: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramFraming {
    /// Each line is a row.
    Newline,
    /// All of it is one.
    Datagram,
}
