//! The classic of batch processing: words, and how many there are.

use sluicebox_sdk::prelude::*;

#[derive(Record)]
pub struct Line<'a> {
    pub line: &'a str,
}

#[derive(Record, Debug, PartialEq)]
pub struct Word {
    /// In lower case.
    pub word: String,
}

/// The words of a line: letters and digits, with anything else between them.
#[operator]
pub fn split(line: Line<'_>) -> impl Iterator<Item = Word> {
    let words = line.line.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(|word| Word {
        word: word.to_lowercase(),
    })
}

#[derive(Record)]
pub struct Anything {}

#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub count: i64,
}

/// The number of rows.
#[operator]
pub struct Count;

impl Aggregate for Count {
    type Input<'a> = Anything;
    type State = Rows;
    type Output<'a> = Rows;

    fn accumulate(&self, rows: &mut Rows, _row: Anything) -> Result<(), Reject> {
        rows.count += 1;
        Ok(())
    }

    fn merge(&self, rows: &mut Rows, later: Rows) {
        rows.count += later.count;
    }

    fn finish(&self, rows: &Rows, _window: Window) -> Rows {
        rows.clone()
    }
}

export!(split, Count);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_letters_and_digits_in_lower_case() {
        let line = "Don't  PANIC -- says Ärger, 42!\t";
        let words: Vec<String> = split(Line { line }).map(|word| word.word).collect();
        assert_eq!(words, ["don", "t", "panic", "says", "ärger", "42"]);
        assert_eq!(split(Line { line: " .. " }).count(), 0);
    }

    #[test]
    fn counts_add_up() {
        let mut rows = Rows::default();
        Count.accumulate(&mut rows, Anything {}).unwrap();
        Count.merge(&mut rows, Rows { count: 2 });
        assert_eq!(Count.finish(&rows, Window::ALL), Rows { count: 3 });
    }
}
