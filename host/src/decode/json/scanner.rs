//! Reads the tokens of JSON: texts, numbers, space. Eight bytes at a time where
//! that pays, since most of a decoder's time is spent here.
//!
//! A scanner looks at one row of a block. It may look at bytes behind the row,
//! but never takes them.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::super::excerpt;
use crate::schema::DataType;

/// How deep values that the schema does not have may be nested.
const DEPTH_MAX: u32 = 128;

/// Why a row is bad. Boxed, so that what every call gives back is small.
pub(super) struct Fault(Box<FaultText>);

struct FaultText {
    /// Outermost first; `None` is an element of a list.
    path: Vec<PathStep>,
    message: String,
}

enum PathStep {
    Field(String),
    Element(usize),
}

impl Fault {
    #[cold]
    pub fn new(message: impl Into<String>) -> Self {
        Fault(Box::new(FaultText {
            path: Vec::new(),
            message: message.into(),
        }))
    }

    #[cold]
    pub fn within(mut self, field: &str) -> Self {
        self.0.path.insert(0, PathStep::Field(field.to_owned()));
        self
    }

    #[cold]
    pub fn at_element(mut self, index: usize) -> Self {
        self.0.path.insert(0, PathStep::Element(index));
        self
    }
}

/// ``field `lines[2].sku`: expected utf8, found 7``
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            f.write_str("field `")?;
            for (i, step) in self.0.path.iter().enumerate() {
                match step {
                    PathStep::Field(name) if i == 0 => write!(f, "{name}")?,
                    PathStep::Field(name) => write!(f, ".{name}")?,
                    PathStep::Element(index) => write!(f, "[{index}]")?,
                }
            }
            let is_sentence = self.0.message.starts_with("is ");
            f.write_str(if is_sentence { "` " } else { "`: " })?;
        }
        f.write_str(&self.0.message)
    }
}

/// A field's name as JSON writes it, with quotes and colon, to be compared at
/// one stroke.
#[derive(Clone, Debug)]
pub(super) struct Key {
    text: Vec<u8>,
    /// Up to 16 bytes of it, and which of the 16 count.
    head: u128,
    mask: u128,
}

impl Key {
    pub fn new(name: &str) -> Self {
        let mut text = serde_json::Value::from(name).to_string().into_bytes();
        text.push(b':');
        let mut head = [0; 16];
        let mut mask = [0; 16];
        for (i, byte) in text.iter().take(16).enumerate() {
            head[i] = *byte;
            mask[i] = 0xFF;
        }
        Key {
            text,
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
        }
    }
}

pub(super) struct Scanner<'d> {
    data: &'d [u8],
    start: usize,
    at: usize,
    end: usize,
}

impl<'d> Scanner<'d> {
    pub fn new(data: &'d [u8], start: usize, end: usize) -> Self {
        Scanner {
            data,
            start,
            at: start,
            end,
        }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        if self.at < self.end {
            self.data.get(self.at).copied()
        } else {
            None
        }
    }

    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    pub fn take_literal(&mut self, literal: &[u8]) -> bool {
        let is_it = self.rest().starts_with(literal);
        if is_it {
            self.at += literal.len();
        }
        is_it
    }

    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Whether the row says this key here, and if so takes it.
    #[inline]
    pub fn take_key(&mut self, key: &Key) -> bool {
        let is_it = match self.data[self.at..].first_chunk::<16>() {
            Some(chunk) => {
                (u128::from_le_bytes(*chunk) ^ key.head) & key.mask == 0
                    && (key.text.len() <= 16
                        || self.data[self.at + 16..].starts_with(&key.text[16..]))
            }
            None => self.data[self.at..].starts_with(&key.text),
        };
        let behind = self.at + key.text.len();
        if is_it && behind <= self.end {
            self.at = behind;
            return true;
        }
        false
    }

    /// Nothing but space may follow.
    #[inline]
    pub fn finish(mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at < self.end {
            return Err(self.unexpected("the end of the row"));
        }
        Ok(())
    }

    /// Adds a text, unescaped, to `out`. The scanner is at its first quote.
    #[inline]
    pub fn text_into(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let start = self.at + 1;
        let stop = special_byte(self.data, start);
        if stop < self.end && self.data[stop] == b'"' {
            append(out, self.data, start..stop);
            self.at = stop + 1;
            return Ok(());
        }
        self.escaped_text_into(out, start, stop)
    }

    /// As [`Scanner::text_into`], for a text that is looked at and forgotten.
    #[inline]
    pub fn text<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Fault>
    where
        'd: 's,
    {
        let start = self.at + 1;
        let stop = special_byte(self.data, start);
        if stop < self.end && self.data[stop] == b'"' {
            self.at = stop + 1;
            return Ok(&self.data[start..stop]);
        }
        scratch.clear();
        self.escaped_text_into(scratch, start, stop)?;
        Ok(scratch)
    }

    /// `stop` is the first special byte behind `start`.
    #[inline(never)]
    fn escaped_text_into(
        &mut self,
        out: &mut Vec<u8>,
        mut start: usize,
        mut stop: usize,
    ) -> Result<(), Fault> {
        loop {
            if stop >= self.end {
                self.at = self.end;
                return Err(self.unexpected("`\"` at the end of a text"));
            }
            out.extend_from_slice(&self.data[start..stop]);
            self.at = stop;
            match self.data[stop] {
                b'"' => {
                    self.at = stop + 1;
                    return Ok(());
                }
                b'\\' => self.escape_into(out)?,
                _ => return Err(self.unexpected("no control character in a text")),
            }
            start = self.at;
            stop = special_byte(self.data, start);
        }
    }

    /// The scanner is at a backslash.
    fn escape_into(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        const EXPECTED: &str = "an escape that JSON has";
        let Some(&[_, letter]) = self.rest().first_chunk() else {
            return Err(self.unexpected(EXPECTED));
        };
        let plain = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode_escape_into(out),
            _ => return Err(self.unexpected(EXPECTED)),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    /// Characters beyond 16 bits are written as two escapes, neither of which
    /// is a character by itself.
    fn unicode_escape_into(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let rest = self.rest();
        let (code, length) = match (utf16_escape(rest), rest.get(6..).and_then(utf16_escape)) {
            (Some(high @ 0xD800..0xDC00), Some(low @ 0xDC00..0xE000)) => {
                (0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12)
            }
            (Some(code), _) => (code, 6),
            (None, _) => return Err(self.unexpected("`\\u` and four hexadecimal digits")),
        };
        let Some(character) = char::from_u32(code) else {
            return Err(self.unexpected("two escapes that are one character together"));
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += length;
        Ok(())
    }

    /// Takes an integer if there is one within these bounds.
    #[inline]
    pub fn try_integer(&mut self, min: i64, max: i64) -> Option<i64> {
        let start = self.at;
        let negative = self.take(b'-');
        let value = self.digits().and_then(|magnitude| {
            if negative {
                0i64.checked_sub_unsigned(magnitude)
            } else {
                i64::try_from(magnitude).ok()
            }
        });
        match value {
            Some(value) if value >= min && value <= max => Some(value),
            _ => {
                self.at = start;
                None
            }
        }
    }

    #[inline]
    pub fn integer(&mut self, data_type: &DataType, min: i64, max: i64) -> Result<i64, Fault> {
        match self.try_integer(min, max) {
            Some(value) => Ok(value),
            None => Err(self.mismatch(data_type)),
        }
    }

    pub fn unsigned(&mut self, data_type: &DataType) -> Result<u64, Fault> {
        let start = self.at;
        match self.digits() {
            Some(value) => Ok(value),
            None => Err(self.mismatch_at(start, data_type)),
        }
    }

    /// An unsigned integer: `None` for one that is too large, has a fraction or
    /// an exponent, or is not there.
    #[inline]
    fn digits(&mut self) -> Option<u64> {
        let start = self.at;
        let (value, length) = match self.data.get(start..).and_then(|rest| rest.first_chunk()) {
            // Most numbers: no more than 16 digits, and bytes behind them.
            Some(chunk) => match sixteen_digits(*chunk) {
                (value, length) if length < 16 => (value, length),
                _ => self.digit_by_digit()?,
            },
            None => self.digit_by_digit()?,
        };
        let leading_zero = length > 1 && self.data[start] == b'0';
        if length == 0 || leading_zero || start + length > self.end {
            return None;
        }
        self.at = start + length;
        match self.peek() {
            Some(b'.' | b'e' | b'E') => None,
            _ => Some(value),
        }
    }

    #[inline(never)]
    fn digit_by_digit(&self) -> Option<(u64, usize)> {
        let mut value = 0u64;
        let mut length = 0;
        for byte in self.rest() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            length += 1;
        }
        Some((value, length))
    }

    pub fn float<F>(&mut self, data_type: &DataType) -> Result<F, Fault>
    where
        F: FromStr + Into<f64> + Copy,
    {
        let start = self.at;
        let read = self
            .number()
            .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
            // What is too large for the type is read as infinite.
            .filter(|&value: &F| value.into().is_finite());
        read.ok_or_else(|| self.mismatch_at(start, data_type))
    }

    /// Takes a number as JSON's grammar has it; nothing if there is none.
    pub fn number(&mut self) -> Option<&'d [u8]> {
        let text = self.rest();
        let digits_from = |at: usize| {
            let rest = text.get(at..).unwrap_or_default();
            rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
        };
        let mut at = usize::from(text.first() == Some(&b'-'));
        let whole = digits_from(at);
        if whole == 0 || (whole > 1 && text[at] == b'0') {
            return None;
        }
        at += whole;
        if text.get(at) == Some(&b'.') {
            let fraction = digits_from(at + 1);
            if fraction == 0 {
                return None;
            }
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = text.get(at) {
            at += 1;
            if let Some(b'+' | b'-') = text.get(at) {
                at += 1;
            }
            let exponent = digits_from(at);
            if exponent == 0 {
                return None;
            }
            at += exponent;
        }
        self.at += at;
        Some(&text[..at])
    }

    /// Takes a value that nobody wants, which must still be JSON.
    pub fn skip_value(&mut self, scratch: &mut Vec<u8>) -> Result<(), Fault> {
        self.skip_value_within(scratch, DEPTH_MAX)
    }

    fn skip_value_within(&mut self, scratch: &mut Vec<u8>, depth: u32) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.text(scratch).map(|_| ()),
            Some(open @ (b'{' | b'[')) => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(self.unexpected("values nested at most 128 deep"));
                };
                self.at += 1;
                self.skip_items(scratch, depth, open == b'{')
            }
            _ => {
                let is_value = self.take_literal(b"true")
                    || self.take_literal(b"false")
                    || self.take_literal(b"null")
                    || self.number().is_some();
                if is_value {
                    Ok(())
                } else {
                    Err(self.unexpected("a value"))
                }
            }
        }
    }

    /// What is between the brackets of a record or a list, and the closing one.
    fn skip_items(
        &mut self,
        scratch: &mut Vec<u8>,
        depth: u32,
        is_record: bool,
    ) -> Result<(), Fault> {
        let (close, expected) = if is_record {
            (b'}', "`,` or `}`")
        } else {
            (b']', "`,` or `]`")
        };
        self.skip_space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            if is_record {
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a field's name in quotes"));
                }
                self.text(scratch)?;
                self.skip_space();
                if !self.take(b':') {
                    return Err(self.unexpected("`:`"));
                }
                self.skip_space();
            }
            self.skip_value_within(scratch, depth)?;
            self.skip_space();
            if self.take(close) {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.unexpected(expected));
            }
            self.skip_space();
        }
    }

    /// Something else than the row's syntax wants here.
    #[cold]
    pub fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.rest() {
            [] => "the end of the row".to_owned(),
            rest => format!("`{}`", excerpt(rest)),
        };
        let at = self.at - self.start;
        Fault::new(format!("byte {at}: expected {expected}, found {found}"))
    }

    /// The value here is not of this type.
    #[cold]
    pub fn mismatch(&self, data_type: &DataType) -> Fault {
        self.mismatch_at(self.at, data_type)
    }

    /// The value that begins at `start` is not of this type.
    #[cold]
    pub fn mismatch_at(&self, start: usize, data_type: &DataType) -> Fault {
        self.expected_at(start, &data_type.to_string())
    }

    #[cold]
    pub fn expected_at(&self, start: usize, expected: &str) -> Fault {
        let mut value = Scanner::new(self.data, start, self.end);
        let found = match value.skip_value(&mut Vec::new()) {
            Ok(()) => excerpt(&self.data[start..value.at]),
            Err(_) if start >= self.end => "the end of the row".to_owned(),
            Err(_) => format!("`{}`", excerpt(&self.data[start..self.end])),
        };
        Fault::new(format!("expected {expected}, found {found}"))
    }

    fn rest(&self) -> &'d [u8] {
        self.data.get(self.at..self.end).unwrap_or_default()
    }
}

/// Where the next byte is that does not stand for itself in a text: a quote, a
/// backslash, a control character; the data's end if there is none.
#[inline]
fn special_byte(data: &[u8], start: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let mut at = start;
    while let Some(chunk) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // A byte's high bit is set where the byte is the one looked for. A
        // borrow may set it in bytes behind the first, which nobody looks at.
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGHS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = data.get(at..).unwrap_or_default();
    rest.iter()
        .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)
        .map_or(data.len(), |found| at + found)
}

/// Appends a part of `data`. Short parts are copied as 16 bytes of which the
/// surplus is dropped again: a copy of fixed length is two instructions.
#[inline]
fn append(out: &mut Vec<u8>, data: &[u8], part: Range<usize>) {
    let length = part.len();
    match data
        .get(part.start..)
        .and_then(|rest| rest.first_chunk::<16>())
    {
        Some(chunk) if length <= 16 => {
            let end = out.len() + length;
            out.extend_from_slice(chunk);
            out.truncate(end);
        }
        _ => out.extend_from_slice(&data[part]),
    }
}

/// The number that the digits at the front make, and how many they are.
#[inline]
fn sixteen_digits(chunk: [u8; 16]) -> (u64, usize) {
    let word = u128::from_le_bytes(chunk);
    let first = word as u64;
    let count = digit_count(first);
    if count < 8 {
        return (eight_digits(first, count), count);
    }
    let second = (word >> 64) as u64;
    let more = digit_count(second);
    let value = eight_digits(first, 8) * POWERS_OF_TEN[more] + eight_digits(second, more);
    (value, 8 + more)
}

const POWERS_OF_TEN: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// How many bytes are digits before the first that is none.
#[inline]
fn digit_count(word: u64) -> usize {
    // A digit's high half is 3, and stays 3 when 6 is added.
    let high_halves = 0xF0F0_F0F0_F0F0_F0F0;
    let threes = 0x3030_3030_3030_3030;
    let sixes = 0x0606_0606_0606_0606;
    let other =
        ((word & high_halves) ^ threes) | ((word.wrapping_add(sixes) & high_halves) ^ threes);
    // 64 zeros where every byte is a digit.
    (other.trailing_zeros() / 8) as usize
}

/// The number that the first `count` bytes make, which are digits: pairs, then
/// fours, then eights are put together in one multiplication each.
#[inline]
fn eight_digits(word: u64, count: usize) -> u64 {
    // Shifted so that the digits are the last of eight and zeros are in front.
    let digits = match count {
        0 => return 0,
        _ => (word & 0x0F0F_0F0F_0F0F_0F0F) << (64 - 8 * count),
    };
    let pairs = digits.wrapping_mul(2_561) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(6_553_601) >> 16;
    (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(42_949_672_960_001) >> 32
}

fn utf16_escape(text: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = text.get(..6)? else {
        return None;
    };
    digits.iter().try_fold(0, |code, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(code * 16 + digit)
    })
}
