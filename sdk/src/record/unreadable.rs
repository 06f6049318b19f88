//! Describes values that are invalid for their field's type.

use std::fmt;

use crate::Reject;

/// A value that is invalid for its field's type, and where it is.
///
/// Boxed, so that the result of reading a good row is small.
#[doc(hidden)]
#[derive(Debug)]
pub struct Unreadable(Box<Mismatch>);

#[derive(Debug)]
struct Mismatch {
    /// Innermost first.
    path: Vec<&'static str>,
    expected: &'static [&'static str],
    found: String,
}

impl Unreadable {
    #[cold]
    pub fn symbol(expected: &'static [&'static str], found: &[u8]) -> Self {
        const SHOWN: usize = 60;
        let mut found = String::from_utf8_lossy(found).into_owned();
        if let Some((cut, _)) = found.char_indices().nth(SHOWN) {
            found.truncate(cut);
            found.push('…');
        }
        Unreadable(Box::new(Mismatch {
            path: Vec::new(),
            expected,
            found,
        }))
    }

    /// Adds the record that has the field to the path.
    #[cold]
    pub fn within(mut self, field: &'static str) -> Self {
        self.0.path.push(field);
        self
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            path,
            expected,
            found,
        } = &*self.0;
        let path: Vec<&str> = path.iter().rev().copied().collect();
        write!(
            f,
            "field `{}`: expected {}, found `{found}`",
            path.join("."),
            Alternatives(expected)
        )
    }
}

impl From<Unreadable> for Reject {
    #[cold]
    fn from(unreadable: Unreadable) -> Self {
        Reject::new(unreadable)
    }
}

/// Lists alternatives: `a`, `b` or `c`.
#[doc(hidden)]
pub struct Alternatives(pub &'static [&'static str]);

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, value) in self.0.iter().enumerate() {
            let between = match i {
                0 => "",
                _ if i + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{between}`{value}`")?;
        }
        Ok(())
    }
}
