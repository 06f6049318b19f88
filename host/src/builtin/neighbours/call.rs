//! Reads calls of functions of a key's rows as a pipeline's file has them: `lag(price, 1, 0)`.

use std::fmt;

use arrow_array::ArrayRef;

use crate::builtin::aggregate::call::CallError;
use crate::decode::Decoder;
use crate::format::{CsvFormat, Format};
use crate::schema::{DataType, Field, Schema};
use crate::suggest;

/// A function of a row and of those before or behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `row_number()`: of the rows of the key, from 1 on.
    RowNumber,
    /// `lag(field, rows, default)` and `lead(field, rows, default)`.
    Neighbour(Neighbour),
}

/// A field of the row that is so many before or behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub side: Side,
    pub field: String,
    pub rows: usize,
    /// What there is instead of such a row.
    pub default: Option<Instead>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    Behind,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A number, `true` or `false`.
    Plain(String),
    /// `'text'`.
    Text(String),
}

const ROW_NUMBER: &str = "row_number";
const NAMES: [&str; 3] = [ROW_NUMBER, "lag", "lead"];

/// A row further away is a mistake: all between are kept for each key.
pub const ROWS_MAX: usize = 1_000;

impl Call {
    pub fn parse(text: &str) -> Result<Call, CallError> {
        let written = text.trim();
        let called = written.split_once('(');
        let called = called.and_then(|(name, rest)| Some((name.trim(), rest.strip_suffix(')')?)));
        let Some((name, arguments)) = called else {
            return Err(CallError {
                problem: "is not a call of a function".to_owned(),
                help: "write a name and its arguments, such as \"lag(price)\"".to_owned(),
            });
        };
        let side = match name {
            ROW_NUMBER if arguments.trim().is_empty() => return Ok(Call::RowNumber),
            ROW_NUMBER => {
                return Err(CallError {
                    problem: format!("gives `{name}` arguments"),
                    help: format!("it takes none: \"{ROW_NUMBER}()\""),
                });
            }
            "lag" => Side::Before,
            "lead" => Side::Behind,
            name => {
                return Err(CallError {
                    problem: format!("calls `{name}`, which is not a function of rows in order"),
                    help: suggest::help(name, "functions", NAMES),
                });
            }
        };
        let wrong = |problem: String| CallError {
            problem,
            help: format!(
                "it takes a field, how many rows away it is (1 to {ROWS_MAX}, or 1 without), and \
                 what there is instead of a row, as in \"{name}(page)\", \"{name}(price, 2, 0)\" \
                 or \"{name}(page, 1, 'none')\""
            ),
        };
        let mut arguments = split(arguments).into_iter();
        let field = arguments.next().unwrap_or_default();
        if field.is_empty() || field.contains(['(', ')', '"', '\'']) {
            return Err(wrong(format!("has `{field}` as the name of a field")));
        }
        let rows = match arguments.next() {
            None => 1,
            Some(rows) => {
                let number = rows.parse().ok();
                let number = number.filter(|rows| (1..=ROWS_MAX).contains(rows));
                number.ok_or_else(|| wrong(format!("asks for the row `{rows}` away")))?
            }
        };
        let default = match arguments.next() {
            None => None,
            Some(default) => {
                let read = Instead::read(default);
                Some(read.ok_or_else(|| wrong(format!("has the value `{default}`")))?)
            }
        };
        if arguments.next().is_some() {
            return Err(wrong(format!("gives `{name}` too many arguments")));
        }
        Ok(Call::Neighbour(Neighbour {
            side,
            field: field.to_owned(),
            rows,
            default,
        }))
    }

    /// How many rows before and behind it reads.
    pub fn reach(&self) -> (usize, usize) {
        match self {
            Call::RowNumber => (0, 0),
            Call::Neighbour(Neighbour { side, rows, .. }) => match side {
                Side::Before => (*rows, 0),
                Side::Behind => (0, *rows),
            },
        }
    }
}

/// The arguments between commas; those in a text separate nothing.
fn split(arguments: &str) -> Vec<&str> {
    let mut in_text = false;
    let between = |character: char| {
        in_text ^= character == '\'';
        character == ',' && !in_text
    };
    arguments.split(between).map(str::trim).collect()
}

impl Instead {
    /// The value, as one of this type.
    pub fn of_type(&self, data_type: &DataType) -> Result<ArrayRef, String> {
        let is_text = matches!(self, Instead::Text(_));
        let wants_text = matches!(
            data_type,
            DataType::Utf8 | DataType::Symbol(_) | DataType::Bytes | DataType::Timestamp
        );
        let (Instead::Plain(value) | Instead::Text(value)) = self;
        if is_text != wants_text {
            return Err(format!("expected {data_type}, found `{value}`"));
        }
        let field = Field::new("value", data_type.clone(), false);
        let csv = Format::Csv(CsvFormat {
            header: false,
            delimiter: b',',
        });
        let row = format!("\"{}\"", value.replace('"', "\"\""));
        let mut decoder = Decoder::new(&csv.into(), &Schema::new(vec![field]));
        let mut decoded = decoder.decode(row.as_bytes(), &[(0, row.len() as u32)]);
        match (decoded.bad.pop(), decoded.columns.pop()) {
            (None, Some(value)) => Ok(value),
            (bad, _) => Err(bad.map(|bad| bad.error).unwrap_or_default()),
        }
    }

    fn read(text: &str) -> Option<Instead> {
        if let Some(quoted) = text.strip_prefix('\'') {
            let inner = quoted.strip_suffix('\'')?;
            let is_one = !inner.replace("''", "").contains('\'');
            return is_one.then(|| Instead::Text(inner.replace("''", "'")));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
        let is_value = !text.is_empty() && text.bytes().all(is_plain);
        is_value.then(|| Instead::Plain(text.to_owned()))
    }
}

/// As in a pipeline's file, always spelt alike.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call::Neighbour(neighbour) = self else {
            return write!(f, "{ROW_NUMBER}()");
        };
        let Neighbour {
            side,
            field,
            rows,
            default,
        } = neighbour;
        let name = match side {
            Side::Before => "lag",
            Side::Behind => "lead",
        };
        write!(f, "{name}({field}")?;
        if *rows > 1 || default.is_some() {
            write!(f, ", {rows}")?;
        }
        match default {
            None => {}
            Some(Instead::Plain(value)) => write!(f, ", {value}")?,
            Some(Instead::Text(text)) => write!(f, ", '{}'", text.replace('\'', "''"))?,
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_and_shown() {
        let texts = [
            ("row_number()", "row_number()"),
            (" row_number ( ) ", "row_number()"),
            ("lag(price)", "lag(price)"),
            ("lead( price , 1 )", "lead(price)"),
            ("lag(price,3)", "lag(price, 3)"),
            ("lag(price, 1, -1.5)", "lag(price, 1, -1.5)"),
            (
                "lead(page, 2, 'it''s, (none)')",
                "lead(page, 2, 'it''s, (none)')",
            ),
            ("lag(page, 1, '')", "lag(page, 1, '')"),
            ("lag(ok, 1, true)", "lag(ok, 1, true)"),
        ];
        for (text, shown) in texts {
            let call = Call::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(call.to_string(), shown);
            assert_eq!(Call::parse(shown), Ok(call));
        }
    }

    #[test]
    fn what_is_no_call_is_explained() {
        let said = |text: &str| match Call::parse(text) {
            Ok(call) => panic!("{text} is {call:?}"),
            Err(error) => error.problem,
        };
        let texts = [
            "",
            "row_number",
            "row_number(x)",
            "rank()",
            "lag()",
            "lag(lag(x))",
            "lag(x, 0)",
            "lag(x, 1001)",
            "lag(x, y)",
            "lag(x, 1, 'a)",
            "lag(x, 1, 'a'b')",
            "lag(x, 1, )",
            "lag(x, 1, 2, 3)",
        ];
        let said: Vec<String> = texts.iter().map(|text| said(text)).collect();
        expect_test::expect![[r#"
            is not a call of a function
            is not a call of a function
            gives `row_number` arguments
            calls `rank`, which is not a function of rows in order
            has `` as the name of a field
            has `lag(x)` as the name of a field
            asks for the row `0` away
            asks for the row `1001` away
            asks for the row `y` away
            has the value `'a`
            has the value `'a'b'`
            has the value ``
            gives `lag` too many arguments"#]]
        .assert_eq(&said.join("\n"));
    }
}
