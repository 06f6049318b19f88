//! Texts that are usually short.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::{copy, same};

/// A text for lists of many ids and names: of at most 22 bytes, it needs no memory of its
/// own, so that it is read, cloned and compared several times as fast as a `String`.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record, Clone, Default)]
/// struct Baskets {
///     items: Vec<Text>,
/// }
///
/// let mut baskets = Baskets::default();
/// baskets.items.push("tea".into());
/// assert!(baskets.items.iter().any(|item| item == "tea"));
/// ```
#[derive(Clone)]
pub struct Text(Repr);

/// How long a text is that needs no memory of its own.
const SHORT: usize = 22;

#[derive(Clone)]
enum Repr {
    /// The first `length` bytes are a text; the others are 0.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<str>),
}

impl Text {
    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Short { length, bytes } => {
                // SAFETY: it was made of a text of this length.
                unsafe { std::str::from_utf8_unchecked(bytes.get_unchecked(..*length as usize)) }
            }
            Repr::Long(text) => text,
        }
    }
}

impl From<&str> for Text {
    #[inline(always)]
    fn from(text: &str) -> Self {
        if text.len() > SHORT {
            return Text(Repr::Long(text.into()));
        }
        let mut bytes = [0; SHORT];
        // SAFETY: there is room for it, and `bytes` is new.
        unsafe { copy(text.as_ptr(), bytes.as_mut_ptr(), text.len()) };
        Text(Repr::Short {
            length: text.len() as u8,
            bytes,
        })
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        match text.len() > SHORT {
            true => Text(Repr::Long(text.into())),
            false => Text::from(text.as_str()),
        }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text.0 {
            Repr::Short { .. } => text.as_str().to_owned(),
            Repr::Long(text) => text.into(),
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Text::from("")
    }
}

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    #[inline]
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Text {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (
                Repr::Short { length, bytes },
                Repr::Short {
                    length: other_length,
                    bytes: other_bytes,
                },
            ) => length == other_length && same(bytes, other_bytes),
            _ => self.as_str() == other.as_str(),
        }
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other)
    }
}

/// As that of the text, so that it can be looked up by it.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_of_every_length_are_what_they_were() {
        let all = "né".repeat(20);
        let lengths = (0..all.len()).filter(|&length| all.is_char_boundary(length));
        let mut known: HashSet<Text> = HashSet::new();
        let mut last: Option<Text> = None;
        for length in lengths {
            let text = &all[..length];
            let short = Text::from(text);
            assert_eq!(short.as_str(), text);
            assert_eq!(Text::from(text.to_owned()), short);
            assert_eq!(String::from(short.clone()), text);
            assert_eq!(format!("{short} {short:?}"), format!("{text} {text:?}"));
            assert!(!known.contains(text) && known.insert(short.clone()));
            assert!(known.contains(text));
            assert!(last.is_none_or(|last| last < short && last != short));
            last = Some(short);
        }
        assert_eq!(size_of::<Text>(), 24);
    }

    #[test]
    fn texts_of_the_same_length_are_told_apart() {
        for length in 1..30 {
            for at in 0..length {
                let one = "a".repeat(length);
                let mut other = one.clone();
                other.replace_range(at..=at, "b");
                assert_ne!(Text::from(one.as_str()), Text::from(other));
                assert_eq!(Text::from(one.as_str()), one);
            }
        }
    }
}
