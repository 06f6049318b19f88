//! Reads the tokens of JSON: texts, numbers, spaces. It reads eight or sixteen
//! bytes at a time where that pays, since a decoder spends most of its time
//! here.
//!
//! A scanner reads one row of a block. It may look at bytes after the row, but
//! never uses them.

use std::ops::Range;
use std::str::FromStr;

use super::super::fault::{RowFault, excerpt};
use crate::non_finite;
use crate::schema::DataType;

/// How deep values that the schema does not have may nest.
const DEPTH_MAX: u32 = 128;

/// A field's name as JSON writes it, with quotes and colon, to be compared in
/// one step.
#[derive(Clone, Debug)]
pub(super) struct JsonKey {
    text: Vec<u8>,
    /// Its first 16 bytes or fewer; `mask` selects them.
    head: u128,
    mask: u128,
}

impl JsonKey {
    pub fn new(name: &str) -> Self {
        let mut text = serde_json::Value::from(name).to_string().into_bytes();
        text.push(b':');
        let mut head = [0; 16];
        let mut mask = [0; 16];
        for (i, byte) in text.iter().take(16).enumerate() {
            head[i] = *byte;
            mask[i] = 0xFF;
        }
        JsonKey {
            text,
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
        }
    }
}

/// A row of a block. Each method is given the place where its token begins, and
/// returns the place where it ends: this keeps the place in a register for the
/// whole row, and makes the scanner fast.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'d> {
    data: &'d [u8],
    start: usize,
    end: usize,
}

impl<'d> Scanner<'d> {
    pub fn new(data: &'d [u8], start: usize, end: usize) -> Self {
        Scanner { data, start, end }
    }

    #[inline(always)]
    pub fn peek(&self, at: usize) -> Option<u8> {
        if at < self.end {
            self.data.get(at).copied()
        } else {
            None
        }
    }

    #[inline(always)]
    pub fn skip_space(&self, mut at: usize) -> usize {
        // All JSON whitespace sorts before other characters, and mostly there
        // is none: one comparison decides.
        while let Some(byte) = self.peek(at)
            && byte <= b' '
            && matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
        {
            at += 1;
        }
        at
    }

    /// The place after this byte and following spaces, if it is here.
    #[inline(always)]
    pub fn take(&self, at: usize, byte: u8) -> Option<usize> {
        if self.peek(at) == Some(byte) {
            Some(self.skip_space(at + 1))
        } else {
            None
        }
    }

    /// The place after this text, if it is here.
    pub fn take_literal(&self, at: usize, literal: &[u8]) -> Option<usize> {
        self.rest(at)
            .starts_with(literal)
            .then(|| at + literal.len())
    }

    /// The place after this key, its colon and spaces, if it is here in its
    /// usual form.
    #[inline(always)]
    pub fn take_key(&self, at: usize, key: &JsonKey) -> Option<usize> {
        let rest = self.data.get(at..)?;
        let is_it = match rest.first_chunk::<16>() {
            Some(chunk) => {
                (u128::from_le_bytes(*chunk) ^ key.head) & key.mask == 0
                    && (key.text.len() <= 16 || rest[16..].starts_with(&key.text[16..]))
            }
            None => rest.starts_with(&key.text),
        };
        let behind = at + key.text.len();
        (is_it && behind <= self.end).then(|| self.skip_space(behind))
    }

    /// Checks that only spaces follow.
    #[inline(always)]
    pub fn finish(&self, at: usize) -> Result<(), RowFault> {
        let at = self.skip_space(at);
        if at < self.end {
            return Err(self.unexpected(at, "the end of the row"));
        }
        Ok(())
    }

    /// Appends an unescaped text to `out`. Its opening quote is at `at`.
    #[inline(always)]
    pub fn text_into(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, RowFault> {
        let start = at + 1;
        let stop = special_byte(self.data, start);
        if self.peek(stop) == Some(b'"') {
            append(out, self.data, start..stop);
            return Ok(stop + 1);
        }
        self.escaped_text_into(start, stop, out)
    }

    /// As [`Scanner::text_into`], for a text that is used only for a moment.
    pub fn text<'s>(
        &self,
        at: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<(usize, &'s [u8]), RowFault>
    where
        'd: 's,
    {
        let start = at + 1;
        let stop = special_byte(self.data, start);
        if self.peek(stop) == Some(b'"') {
            return Ok((stop + 1, &self.data[start..stop]));
        }
        scratch.clear();
        let behind = self.escaped_text_into(start, stop, scratch)?;
        Ok((behind, scratch))
    }

    /// Continues a text from its first special byte, at `stop`.
    #[inline(never)]
    fn escaped_text_into(
        &self,
        mut start: usize,
        mut stop: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, RowFault> {
        loop {
            let Some(special) = self.peek(stop) else {
                return Err(self.unexpected(self.end, "`\"` at the end of a text"));
            };
            out.extend_from_slice(&self.data[start..stop]);
            start = match special {
                b'"' => return Ok(stop + 1),
                b'\\' => self.escape_into(stop, out)?,
                _ => return Err(self.unexpected(stop, "no control character in a text")),
            };
            stop = special_byte(self.data, start);
        }
    }

    /// Appends the character that the escape at `at` stands for.
    fn escape_into(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, RowFault> {
        let plain = match self.peek(at + 1) {
            Some(letter @ (b'"' | b'\\' | b'/')) => letter,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape_into(at, out),
            _ => return Err(self.unexpected(at, "an escape that JSON has")),
        };
        out.push(plain);
        Ok(at + 2)
    }

    /// Characters beyond 16 bits are written as two escapes, neither of which
    /// is a character alone.
    fn unicode_escape_into(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, RowFault> {
        let rest = self.rest(at);
        let (code, length) = match (utf16_escape(rest), rest.get(6..).and_then(utf16_escape)) {
            (Some(high @ 0xD800..0xDC00), Some(low @ 0xDC00..0xE000)) => {
                (0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12)
            }
            (Some(code), _) => (code, 6),
            (None, _) => {
                return Err(self.unexpected(at, "`\\u` and four hexadecimal digits"));
            }
        };
        let Some(character) = char::from_u32(code) else {
            return Err(self.unexpected(at, "two escapes that are one character together"));
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(at + length)
    }

    /// An integer, and the place after it. `None` if it is too large, has a fraction or an
    /// exponent, or is not a number.
    #[inline(always)]
    pub fn integer(&self, at: usize) -> Option<(usize, i64)> {
        let is_negative = self.peek(at) == Some(b'-');
        let (behind, magnitude) = self.unsigned(at + usize::from(is_negative))?;
        let value = if is_negative {
            0i64.checked_sub_unsigned(magnitude)?
        } else {
            i64::try_from(magnitude).ok()?
        };
        Some((behind, value))
    }

    /// As [`Scanner::integer`], without a sign.
    #[inline(always)]
    fn unsigned(&self, at: usize) -> Option<(usize, u64)> {
        let (value, length) = match self.data.get(at..)?.first_chunk() {
            // The common case: fewer than 16 digits, and more bytes in the
            // block.
            Some(chunk) => match sixteen_digits(*chunk) {
                (value, length) if length < 16 => (value, length),
                _ => self.digit_by_digit(at)?,
            },
            None => self.digit_by_digit(at)?,
        };
        let behind = at + length;
        let has_leading_zero = length > 1 && self.data[at] == b'0';
        if length == 0 || has_leading_zero || behind > self.end {
            return None;
        }
        match self.peek(behind) {
            Some(b'.' | b'e' | b'E') => None,
            _ => Some((behind, value)),
        }
    }

    #[inline(never)]
    fn digit_by_digit(&self, at: usize) -> Option<(u64, usize)> {
        let mut value = 0u64;
        let mut length = 0;
        for byte in self.rest(at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            length += 1;
        }
        Some((value, length))
    }

    /// A number that the type can hold, perhaps with less precision than its
    /// text.
    pub fn float<F>(&self, at: usize) -> Option<(usize, F)>
    where
        F: FromStr + Into<f64> + Copy,
    {
        let Some(text) = self.number(at) else {
            return self.non_finite(at);
        };
        let value: F = std::str::from_utf8(text).ok()?.parse().ok()?;
        // A number that is too large is parsed as infinite.
        value.into().is_finite().then_some((at + text.len(), value))
    }

    /// A number that JSON does not have, as a word in quotes.
    #[cold]
    fn non_finite<F: FromStr>(&self, at: usize) -> Option<(usize, F)> {
        let text = self.rest(at).strip_prefix(b"\"")?;
        let length = text.iter().position(|&byte| byte == b'"')?;
        let word = Some(&text[..length]).filter(|word| non_finite::is_word(word))?;
        let value = std::str::from_utf8(word).ok()?.parse().ok()?;
        Some((at + length + 2, value))
    }

    /// The text of a number as JSON's grammar has it.
    pub fn number(&self, at: usize) -> Option<&'d [u8]> {
        let text = self.rest(at);
        let digits_from = |at: usize| {
            let rest = text.get(at..).unwrap_or_default();
            rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
        };
        let mut length = usize::from(text.first() == Some(&b'-'));
        let whole = digits_from(length);
        if whole == 0 || (whole > 1 && text[length] == b'0') {
            return None;
        }
        length += whole;
        if text.get(length) == Some(&b'.') {
            let fraction = digits_from(length + 1);
            if fraction == 0 {
                return None;
            }
            length += 1 + fraction;
        }
        if let Some(b'e' | b'E') = text.get(length) {
            length += 1;
            if let Some(b'+' | b'-') = text.get(length) {
                length += 1;
            }
            let exponent = digits_from(length);
            if exponent == 0 {
                return None;
            }
            length += exponent;
        }
        Some(&text[..length])
    }

    /// The place after a value that the schema does not have; it must still be
    /// valid JSON.
    pub fn skip_value(&self, at: usize, scratch: &mut Vec<u8>) -> Result<usize, RowFault> {
        self.skip_value_within(at, scratch, DEPTH_MAX)
    }

    fn skip_value_within(
        &self,
        at: usize,
        scratch: &mut Vec<u8>,
        depth: u32,
    ) -> Result<usize, RowFault> {
        match self.peek(at) {
            Some(b'"') => self.text(at, scratch).map(|(behind, _)| behind),
            Some(open @ (b'{' | b'[')) => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(self.unexpected(at, "values nested at most 128 deep"));
                };
                self.skip_items(self.skip_space(at + 1), scratch, depth, open == b'{')
            }
            _ => self
                .take_literal(at, b"true")
                .or_else(|| self.take_literal(at, b"false"))
                .or_else(|| self.take_literal(at, b"null"))
                .or_else(|| Some(at + self.number(at)?.len()))
                .ok_or_else(|| self.unexpected(at, "a value")),
        }
    }

    /// Skips the items of a record or list, and its closing bracket.
    fn skip_items(
        &self,
        mut at: usize,
        scratch: &mut Vec<u8>,
        depth: u32,
        is_record: bool,
    ) -> Result<usize, RowFault> {
        let close = if is_record { b'}' } else { b']' };
        if self.peek(at) == Some(close) {
            return Ok(at + 1);
        }
        loop {
            if is_record {
                (at, _) = self.other_key(at, scratch)?;
            }
            at = self.skip_value_within(at, scratch, depth)?;
            match self.next_item(at, close)? {
                (behind, true) => at = behind,
                (behind, false) => return Ok(behind),
            }
        }
    }

    /// Any valid key in any form, and the place after it and its colon.
    #[inline(never)]
    pub fn other_key<'s>(
        &self,
        at: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<(usize, &'s [u8]), RowFault>
    where
        'd: 's,
    {
        if self.peek(at) != Some(b'"') {
            return Err(self.unexpected(at, "a field's name in quotes"));
        }
        let (at, name) = self.text(at, scratch)?;
        let at = self.skip_space(at);
        match self.take(at, b':') {
            Some(at) => Ok((at, name)),
            None => Err(self.unexpected(at, "`:`")),
        }
    }

    /// After an item: the place of the next one and true, or the place after
    /// the closing bracket and false.
    #[inline(always)]
    pub fn next_item(&self, at: usize, close: u8) -> Result<(usize, bool), RowFault> {
        let at = self.skip_space(at);
        if let Some(next) = self.take(at, b',') {
            return Ok((next, true));
        }
        if self.peek(at) == Some(close) {
            return Ok((at + 1, false));
        }
        Err(self.unclosed(at, close))
    }

    #[cold]
    fn unclosed(&self, at: usize, close: u8) -> RowFault {
        self.unexpected(at, &format!("`,` or `{}`", char::from(close)))
    }

    /// Reports a syntax error: `expected` is missing here.
    #[cold]
    #[inline(never)]
    pub fn unexpected(&self, at: usize, expected: &str) -> RowFault {
        let found = match self.rest(at) {
            [] => "the end of the row".to_owned(),
            rest => format!("`{}`", excerpt(rest)),
        };
        let at = at - self.start;
        RowFault::new(format!("byte {at}: expected {expected}, found {found}"))
    }

    /// Reports that the value here is not of this type.
    #[cold]
    #[inline(never)]
    pub fn mismatch(&self, at: usize, data_type: &DataType) -> RowFault {
        self.not_a(at, &data_type.to_string())
    }

    #[cold]
    pub fn not_a(&self, at: usize, expected: &str) -> RowFault {
        let found = match self.skip_value(at, &mut Vec::new()) {
            Ok(behind) => excerpt(&self.data[at..behind]),
            Err(_) if at >= self.end => "the end of the row".to_owned(),
            Err(_) => format!("`{}`", excerpt(self.rest(at))),
        };
        RowFault::new(format!("expected {expected}, found {found}"))
    }

    fn rest(&self, at: usize) -> &'d [u8] {
        self.data.get(at..self.end).unwrap_or_default()
    }
}

/// Finds the next byte of a text that has to be handled: a quote, a backslash,
/// a control character; or else the end of the data.
#[inline(always)]
fn special_byte(data: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(chunk) = data.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let found = special_bytes(chunk);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    let rest = data.get(at..).unwrap_or_default();
    rest.iter()
        .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)
        .map_or(data.len(), |found| at + found)
}

/// Sets a bit for each special byte, the lowest for the first.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn special_bytes(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8,
    };
    let word = u128::from_le_bytes(*chunk);
    // SAFETY: these instructions are SSE2, which every x86-64 machine has.
    unsafe {
        let bytes = _mm_set_epi64x((word >> 64) as i64, word as i64);
        let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
        let found = _mm_or_si128(_mm_or_si128(quotes, backslashes), controls);
        _mm_movemask_epi8(found) as u32
    }
}

/// For other machines; the compiler vectorizes it if it can.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn special_bytes(chunk: &[u8; 16]) -> u32 {
    chunk.iter().rev().fold(0, |found, &byte| {
        found << 1 | u32::from(byte == b'"' || byte == b'\\' || byte < 0x20)
    })
}

/// Appends a part of `data`. A short part is copied as 16 bytes and then cut: a
/// copy of fixed length takes two instructions.
#[inline(always)]
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

/// The number that the leading digits form, and how many digits there are.
#[inline(always)]
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

/// How many digits precede the first byte that is none.
#[inline(always)]
fn digit_count(word: u64) -> usize {
    // The high half of a digit is 3, and stays 3 when 6 is added.
    let high_halves = 0xF0F0_F0F0_F0F0_F0F0;
    let threes = 0x3030_3030_3030_3030;
    let sixes = 0x0606_0606_0606_0606;
    let other =
        ((word & high_halves) ^ threes) | ((word.wrapping_add(sixes) & high_halves) ^ threes);
    // 64 zeros if all bytes are digits.
    (other.trailing_zeros() / 8) as usize
}

/// The number that the first `count` bytes, all digits, form: pairs, then
/// fours, then eights are combined by one multiplication each.
#[inline(always)]
fn eight_digits(word: u64, count: usize) -> u64 {
    // Shifted so that the digits come last, after zeros.
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
