//! Cuts the body of a request into rows. What is wrong with one row is found when it is
//! decoded; here, only a body is refused of which nobody can say where its rows are.

use crate::format::Format;
use crate::source::pieces::{Piece, RowCutter};

/// How rows follow one another in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value of JSON, several, or an array of them.
    Values,
    Lines,
}

/// The shape of a body with this `Content-Type`; the error says which types there are.
pub fn shape_of(format: &Format, content_type: Option<&str>) -> Result<Shape, &'static str> {
    let essence = content_type.and_then(|text| text.split(';').next());
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    match (format, essence.as_str()) {
        (Format::Json, "" | "application/json" | "text/json") => Ok(Shape::Values),
        (Format::Json, essence) if essence.ends_with("+json") => Ok(Shape::Values),
        (
            Format::Json,
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines",
        ) => Ok(Shape::Lines),
        (Format::Json, _) => Err(
            "send JSON as `application/json` (an object, or an array of them), or lines of JSON as \
             `application/x-ndjson`",
        ),
        (Format::Csv(_), "" | "text/csv" | "text/plain" | "application/octet-stream") => {
            Ok(Shape::Lines)
        }
        (Format::Csv(_), _) => Err("send rows as `text/csv`, without a header"),
        (Format::Raw | Format::Syslog(_) | Format::Debezium(_) | Format::Message(_), _) => {
            Ok(Shape::Lines)
        }
    }
}

/// A piece has no more rows: what is left of one is moved when some of it are handed out.
const PIECE_ROWS: usize = 4_096;

/// Cuts a body into rows; `cutter` is one that has seen nothing.
pub fn cut(
    mut body: Vec<u8>,
    shape: Shape,
    format: &Format,
    cutter: &RowCutter,
) -> Result<Vec<Piece>, String> {
    if *format != Format::Raw && body.starts_with(b"\xEF\xBB\xBF") {
        body.drain(..3);
    }
    match shape {
        Shape::Values => {
            let spans = values(&body)?;
            let whole = Piece {
                data: body,
                spans,
                ..Piece::default()
            };
            Ok(split(whole))
        }
        Shape::Lines => Ok(lines(body, cutter.clone())),
    }
}

fn split(whole: Piece) -> Vec<Piece> {
    if whole.spans.len() <= PIECE_ROWS {
        return vec![whole];
    }
    let chunks = whole.spans.chunks(PIECE_ROWS);
    let mut pieces: Vec<Piece> = chunks
        .map(|spans| {
            let from = spans.first().map_or(0, |(start, _)| *start);
            let to = spans.last().map_or(0, |(_, end)| *end);
            let moved = spans.iter().map(|(start, end)| (start - from, end - from));
            Piece {
                data: whole.data[from as usize..to as usize].to_vec(),
                spans: moved.collect(),
                ..Piece::default()
            }
        })
        .collect();
    if let Some(last) = pieces.last_mut() {
        last.broken = whole.broken;
    }
    pieces
}

fn lines(mut body: Vec<u8>, mut cutter: RowCutter) -> Vec<Piece> {
    // The last line may have no line end.
    if !body.is_empty() && !body.ends_with(b"\n") {
        body.push(b'\n');
    }
    cutter.text = body;
    let mut pieces = Vec::new();
    loop {
        let piece = cutter.take(false);
        if piece.is_empty() {
            break;
        }
        pieces.extend(split(piece));
    }
    if cutter.is_in_row() {
        let length = cutter.text.len();
        pieces.push(cutter.take_bad(format!(
            "expected the closing quote of a field, found {length} bytes of its row and the end of \
             the request"
        )));
    }
    pieces
}

/// Where values are: the elements of an array, or values that follow one another.
fn values(body: &[u8]) -> Result<Vec<(u32, u32)>, String> {
    let mut spans = Vec::new();
    let begin = after_space(body, 0);
    if body.get(begin) != Some(&b'[') {
        let mut at = begin;
        while at < body.len() {
            let end = value_end(body, at, spans.len())?;
            spans.push((at as u32, end as u32));
            at = after_space(body, end);
        }
        return Ok(spans);
    }
    let mut at = after_space(body, begin + 1);
    if body.get(at) == Some(&b']') {
        at += 1;
    } else {
        loop {
            let end = value_end(body, at, spans.len())?;
            spans.push((at as u32, end as u32));
            at = after_space(body, end);
            match body.get(at) {
                Some(b',') => at = after_space(body, at + 1),
                Some(b']') => break at += 1,
                other => {
                    let rows = spans.len();
                    let found = shown(other);
                    return Err(format!(
                        "expected `,` or `]` behind row {rows} of the array, at byte {at}, found \
                         {found}"
                    ));
                }
            }
        }
    }
    let rest = after_space(body, at);
    match body.get(rest) {
        None => Ok(spans),
        other => Err(format!(
            "expected the end behind the array, at byte {rest}, found {}",
            shown(other)
        )),
    }
}

fn after_space(body: &[u8], at: usize) -> usize {
    let space = body[at..]
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    at + space.count()
}

/// The end of the value that begins here. Brackets and texts alone are looked at.
fn value_end(body: &[u8], start: usize, rows: usize) -> Result<usize, String> {
    let row = rows + 1;
    let mut depth = 0usize;
    let mut at = start;
    while let Some(&byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = text_end(body, at).ok_or_else(|| unfinished(row, start))?,
            b'{' | b'[' => {
                depth += 1;
                continue;
            }
            b'}' | b']' if depth > 0 => depth -= 1,
            _ if depth > 0 => continue,
            b',' | b']' | b'}' => {
                let found = shown(Some(&byte));
                let at = at - 1;
                return Err(format!("expected row {row} at byte {at}, found {found}"));
            }
            // A number or a word.
            _ => {
                let rest = body[at..].iter().take_while(|byte| {
                    !matches!(
                        byte,
                        b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']' | b'{' | b'}' | b'"'
                    )
                });
                return Ok(at + rest.count());
            }
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(unfinished(row, start))
}

/// Behind the closing quote of a text.
fn text_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let found = memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        match body[at + found] {
            b'"' => return Some(at + found + 1),
            _ => at += found + 2,
        }
    }
}

fn unfinished(row: usize, start: usize) -> String {
    format!("row {row}, which begins at byte {start}, has no end")
}

fn shown(byte: Option<&u8>) -> String {
    match byte {
        None => "the end".to_owned(),
        Some(byte) if byte.is_ascii_graphic() => format!("`{}`", char::from(*byte)),
        Some(byte) => format!("the byte {byte:#04x}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::format::CsvFormat;
    use crate::schema::{DataType, Field, Schema};

    const CSV: Format = Format::Csv(CsvFormat {
        header: false,
        delimiter: b',',
    });

    fn rows_of(body: &str, shape: Shape, format: &Format) -> Result<Vec<String>, String> {
        let fields = ["a", "b"].map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Schema::new(fields[..if *format == Format::Raw { 1 } else { 2 }].to_vec());
        let cutter = RowCutter::new(format, Some(schema.fields.len()), &schema);
        let pieces = cut(body.as_bytes().to_vec(), shape, format, &cutter)?;
        let mut rows = Vec::new();
        for piece in pieces {
            let text = |&(start, end): &(u32, u32)| {
                String::from_utf8_lossy(&piece.data[start as usize..end as usize]).into_owned()
            };
            rows.extend(piece.spans.iter().map(text));
            rows.extend(piece.broken.map(|bad| format!("bad: {}", bad.error)));
        }
        Ok(rows)
    }

    #[test]
    fn values_are_found_wherever_they_are() {
        let found = |body: &str| match rows_of(body, Shape::Values, &Format::Json) {
            Ok(rows) => rows.join(" | "),
            Err(error) => format!("no: {error}"),
        };
        for (body, expected) in [
            ("", ""),
            (" \n", ""),
            ("[]", ""),
            (" [ ] ", ""),
            ("{}", "{}"),
            ("{\"a\":\n 1}\n", "{\"a\":\n 1}"),
            ("\u{FEFF}{\"a\":1}", "{\"a\":1}"),
            ("{\"a\":1}\n{\"a\":2}{}", "{\"a\":1} | {\"a\":2} | {}"),
            (
                "[{\"a\":[1,{}]} ,\n{\"b\":2}]",
                "{\"a\":[1,{}]} | {\"b\":2}",
            ),
            (
                r#"[{"a":"]}\"\\"},1,null,"x"]"#,
                r#"{"a":"]}\"\\"} | 1 | null | "x""#,
            ),
            // Wrong by themselves alone.
            ("[{\"a\":tru}, nothing, {]]", "{\"a\":tru} | nothing | {]"),
            (
                "[1 2]",
                "no: expected `,` or `]` behind row 1 of the array, at byte 3, found `2`",
            ),
            ("[1,]", "no: expected row 2 at byte 3, found `]`"),
            ("[,1]", "no: expected row 1 at byte 1, found `,`"),
            (
                "[1",
                "no: expected `,` or `]` behind row 1 of the array, at byte 2, found the end",
            ),
            ("[1,", "no: row 2, which begins at byte 3, has no end"),
            (
                "[1] x",
                "no: expected the end behind the array, at byte 4, found `x`",
            ),
            ("{\"a\":\"", "no: row 1, which begins at byte 0, has no end"),
            (
                "{\"a\":\"\\",
                "no: row 1, which begins at byte 0, has no end",
            ),
            (
                "[{}, {\"a\":",
                "no: row 2, which begins at byte 5, has no end",
            ),
            ("}", "no: expected row 1 at byte 0, found `}`"),
        ] {
            assert_eq!(found(body), expected, "{body}");
        }
    }

    #[test]
    fn lines_are_cut_as_in_files() {
        let rows = |body: &str, format| rows_of(body, Shape::Lines, format).expect("lines");
        assert_eq!(rows("{}\r\n\n{\"a\"", &Format::Json), ["{}", "{\"a\""]);
        assert_eq!(rows("a\n\nb", &Format::Raw), ["a", "", "b"]);
        assert_eq!(rows("", &Format::Raw), [""; 0]);
        assert_eq!(rows("1,\"a\nb\"\n2,c", &CSV), ["1,\"a\nb\"", "2,c"]);
        let rows = rows("1,a\n2,\"b", &CSV);
        assert_eq!(rows[0], "1,a");
        assert!(rows[1].contains("closing quote"), "{rows:?}");
    }

    #[test]
    fn many_rows_are_in_several_pieces() {
        let count = 2 * PIECE_ROWS + 1;
        let expected: Vec<String> = (0..count).map(|row| row.to_string()).collect();
        for (body, shape) in [
            (format!("[{}]", expected.join(", ")), Shape::Values),
            (expected.join("\n"), Shape::Lines),
        ] {
            let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
            let cutter = RowCutter::new(&Format::Json, Some(1), &schema);
            let pieces = cut(body.clone().into_bytes(), shape, &Format::Json, &cutter);
            let pieces = pieces.expect("rows");
            assert_eq!(pieces.len(), 3);
            assert_eq!(rows_of(&body, shape, &Format::Json), Ok(expected.clone()));
        }
    }

    #[test]
    fn the_type_of_a_body_says_its_shape() {
        let json = |text| shape_of(&Format::Json, Some(text)).ok();
        assert_eq!(shape_of(&Format::Json, None), Ok(Shape::Values));
        assert_eq!(json("application/json; charset=utf-8"), Some(Shape::Values));
        assert_eq!(json("Application/CloudEvents+JSON"), Some(Shape::Values));
        assert_eq!(json("application/x-ndjson"), Some(Shape::Lines));
        assert_eq!(json("application/jsonl"), Some(Shape::Lines));
        assert_eq!(json("application/x-www-form-urlencoded"), None);
        assert_eq!(shape_of(&CSV, Some("text/csv")), Ok(Shape::Lines));
        assert!(shape_of(&CSV, Some("application/json")).is_err());
        assert_eq!(shape_of(&Format::Raw, Some("image/png")), Ok(Shape::Lines));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn elements_of_an_array_are_those_of_any_other_reader(
            values in prop::collection::vec(json(), 0..6),
            is_pretty: bool,
        ) {
            let array = Value::from(values.clone());
            let body = match is_pretty {
                true => serde_json::to_string_pretty(&array),
                false => serde_json::to_string(&array),
            };
            let rows = rows_of(&body.expect("JSON"), Shape::Values, &Format::Json);
            let rows = rows.expect("an array").into_iter();
            let read = rows.map(|row| serde_json::from_str(&row).expect("JSON"));
            prop_assert_eq!(read.collect::<Vec<Value>>(), values);
        }

        #[test]
        fn whatever_comes_is_cut_or_refused(body in "[\\[\\]{}\",\\\\ a1:]{0,20}") {
            if let Ok(rows) = rows_of(&body, Shape::Values, &Format::Json) {
                let length: usize = rows.iter().map(String::len).sum();
                prop_assert!(length <= body.len());
            }
        }
    }
}
