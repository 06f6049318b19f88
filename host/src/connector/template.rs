//! Texts with fields of the row in them: `cart:{user_id}`. A brace is written twice.

use std::ops::Range;

/// A part of such a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// A field's name, and where it is in the template.
    Field(String, Range<usize>),
}

/// Why a text is no template: what is wrong, and where.
pub type Wrong = (&'static str, Range<usize>);

pub fn parse(text: &str) -> Result<Vec<Part>, Wrong> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        let is_double = rest.peek().is_some_and(|(_, next)| *next == character);
        match character {
            '{' | '}' if is_double => {
                rest.next();
                plain.push(character);
            }
            '{' => {
                let end = text[at..].find('}');
                let end = at + end.ok_or(("a brace is not closed", at..at + 1))?;
                let name = &text[at + 1..end];
                if name.is_empty() || name.contains('{') {
                    return Err(("between braces is the name of a field", at..end + 1));
                }
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Field(name.to_owned(), at + 1..end));
                while rest.next_if(|(next, _)| *next <= end).is_some() {}
            }
            '}' => {
                return Err((
                    "a brace is not opened; one that is meant is `}}`",
                    at..at + 1,
                ));
            }
            _ => plain.push(character),
        }
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    match parts.is_empty() {
        true => Err(("it is empty", 0..0)),
        false => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_braces() {
        let shown = |text: &str| {
            let parts = parse(text).map_err(|(why, _)| why)?;
            let parts = parts.into_iter().map(|part| match part {
                Part::Text(text) => format!("'{text}'"),
                Part::Field(name, place) => format!("{name}@{place:?}"),
            });
            Ok::<_, &str>(Vec::from_iter(parts).join(" "))
        };
        assert_eq!(
            shown("cart:{user_id}"),
            Ok("'cart:' user_id@6..13".to_owned())
        );
        assert_eq!(shown("{a}{b}ü"), Ok("a@1..2 b@4..5 'ü'".to_owned()));
        assert_eq!(shown("{{tag}}:{a}"), Ok("'{tag}:' a@9..10".to_owned()));
        assert_eq!(shown("plain"), Ok("'plain'".to_owned()));
        for text in ["", "{", "a}", "{}", "{a", "{a{b}}"] {
            assert!(shown(text).is_err(), "{text}");
        }
    }
}
