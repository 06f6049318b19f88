//! Finds the members of a record in JSON, without reading their values.

use std::ops::Range;

use super::super::fault::RowFault;
use super::scanner::Scanner;

/// Where the values of some members of a record are.
pub(super) type Members<const N: usize> = [Option<Range<usize>>; N];

/// The values of these members of a record, but nulls, and the place behind it.
pub(super) fn members<const N: usize>(
    scanner: Scanner<'_>,
    data: &[u8],
    at: usize,
    names: [&str; N],
    scratch: &mut Vec<u8>,
) -> Result<(Members<N>, usize), RowFault> {
    let mut found = [const { None }; N];
    let mut twice = None;
    let wanted = |name: &[u8]| names.iter().position(|known| known.as_bytes() == name);
    let behind = each_member(scanner, at, scratch, wanted, |part, value| {
        if found[part].replace(value).is_some() {
            twice = Some(part);
        }
    })?;
    if let Some(part) = twice {
        return Err(RowFault::new("is given twice").within(names[part]));
    }
    // Of the values that JSON has, only null begins so.
    let is_value = |value: &Range<usize>| data[value.start] != b'n';
    Ok((found.map(|value| value.filter(is_value)), behind))
}

/// Hands over where the values of a record's members are that are wanted. Returns the place
/// behind the record.
pub(super) fn each_member(
    scanner: Scanner<'_>,
    at: usize,
    scratch: &mut Vec<u8>,
    wanted: impl Fn(&[u8]) -> Option<usize>,
    mut found: impl FnMut(usize, Range<usize>),
) -> Result<usize, RowFault> {
    let Some(mut at) = scanner.take(at, b'{') else {
        return Err(scanner.unexpected(at, "a record"));
    };
    if scanner.peek(at) == Some(b'}') {
        return Ok(at + 1);
    }
    loop {
        let (value, name) = scanner.other_key(at, scratch)?;
        let wanted = wanted(name);
        let behind = scanner.skip_value(value, scratch)?;
        if let Some(wanted) = wanted {
            found(wanted, value..behind);
        }
        match scanner.next_item(behind, b'}')? {
            (next, true) => at = next,
            (behind, false) => return Ok(behind),
        }
    }
}
