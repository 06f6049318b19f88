//! Values that are not what their field's type allows.

use std::fmt;

use crate::Reject;

/// A value that is not what its field's type allows, and where.
///
/// Boxed, so that reading a row that is fine moves no more than a pointer.
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

    /// The same, seen from the record that has the field.
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
            Choice(expected)
        )
    }
}

impl From<Unreadable> for Reject {
    #[cold]
    fn from(unreadable: Unreadable) -> Self {
        Reject::new(unreadable)
    }
}

/// As people list alternatives: `a`, `b` or `c`.
#[doc(hidden)]
pub struct Choice(pub &'static [&'static str]);

impl fmt::Display for Choice {
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
