//! The rows between the stages of a look-up, and what waits for answers. Names of fields
//! that come beside the author's differ from those of authors.

use super::Lookup;
use crate::Record;
use crate::ports::two::{PortNames, Two};
use crate::record::{And, Named, field_names};

/// A row whose keys are being looked up.
pub type Waiting<P> = And<Parts, Named<OfRow, <P as Lookup>::Row>>;

/// Which row it is, and how many keys it wants.
#[derive(Record)]
pub struct Parts {
    pub lookup_high: u64,
    pub lookup_low: u64,
    pub lookup_parts: u32,
}

/// A key that a row wants.
pub type Wanted<P> = And<Part, <P as Lookup>::Key>;

/// Which of the keys it is, of which row.
#[derive(Record)]
pub struct Part {
    pub lookup_high: u64,
    pub lookup_low: u64,
    pub lookup_part: u32,
}

/// What the table has for a key that a row wants.
pub type Answer<P> = And<Part, Named<OfFound, Option<<P as Lookup>::Found>>>;

/// The first stage puts out rows, and the keys that they want.
pub type Asked<P> = Two<Asking, Waiting<P>, Wanted<P>>;

/// The last stage takes rows, and what was found for them.
pub type Answered<P> = Two<Answering, Waiting<P>, Answer<P>>;

pub enum Asking {}

impl PortNames for Asking {
    const NAMES: [&'static str; 2] = ["rows", "keys"];
}

/// Rows come first in the order of the last stage.
pub enum Answering {}

impl PortNames for Answering {
    const NAMES: [&'static str; 2] = ["rows", "found"];
}

/// Rows that are equal and have the same time, of which not all answers have come.
pub type Pending<P> =
    And<Rows, And<Named<OfRow, Option<<P as Lookup>::Row>>, Named<OfAnswers, Answers<P>>>>;

#[derive(Record, Clone, Default)]
pub struct Rows {
    /// How many such rows there are.
    pub rows: u32,
    /// How many keys each wants.
    pub parts: u32,
    /// Which part each answer belongs to.
    pub answered: Vec<u32>,
}

/// What has been found, in the order of `answered`.
type Answers<P> = Vec<Option<<P as Lookup>::Found>>;

field_names! {
    OfRow: "row",
    OfFound: "found",
    OfAnswers: "answers",
}
