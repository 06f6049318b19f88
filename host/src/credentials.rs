//! Finds what is secret in addresses: who may use them, and signatures.
//!
//! `s3://key:secret@host`, `user:secret@host:9092`, `https://host/?token=secret`. Text that
//! is shown has `*` in the place of it.

use std::borrow::Cow;
use std::ops::Range;

/// Parts of the names of parameters whose values are secret.
const SECRET_PARAMETERS: &[&str] = &[
    "key",
    "secret",
    "token",
    "sig",
    "pas",
    "pwd",
    "credential",
    "auth",
];

/// What stands for each secret.
const HIDDEN: &str = "***";

/// The places of secrets in the addresses of a text, in ascending order.
pub fn find(text: &str) -> Vec<Range<usize>> {
    // Nearly all texts have neither.
    if !text.contains(['@', '?']) {
        return Vec::new();
    }
    let mut places = Vec::new();
    let mut start = 0;
    for word in text.split_inclusive(is_around) {
        let bare = word.trim_end_matches(is_around);
        let found = user_of(bare).into_iter().chain(parameters_of(bare));
        for place in found {
            let end = places.last().map_or(0, |last: &Range<usize>| last.end);
            let place = (start + place.start).max(end)..start + place.end;
            if !place.is_empty() {
                places.push(place);
            }
        }
        start += word.len();
    }
    places
}

/// Whether a value that is an address has a secret, which may have any character.
pub fn has_any(value: &str) -> bool {
    let value = value.trim();
    let is_scheme = |scheme: &str| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let is_address = value
        .split_once("://")
        .is_some_and(|(scheme, _)| is_scheme(scheme));
    !find(value).is_empty() || (is_address && user_of(value).is_some())
}

/// The text as it may be shown.
pub fn hidden(text: &str) -> Cow<'_, str> {
    let places = find(text);
    if places.is_empty() {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for place in places {
        shown.push_str(&text[at..place.start]);
        shown.push_str(HIDDEN);
        at = place.end;
    }
    shown.push_str(&text[at..]);
    shown.into()
}

/// Whether a character ends an address.
fn is_around(character: char) -> bool {
    character.is_whitespace() || "\"'`<>".contains(character)
}

/// The user, and perhaps a password, before the `@` of an address. A secret may have any
/// character, written as it is by mistake: `s3://key:sec/ret@host`.
fn user_of(word: &str) -> Option<Range<usize>> {
    let (start, has_scheme) = match word.find("://") {
        Some(at) => (at + "://".len(), true),
        None => (0, false),
    };
    let address = &word[start..];
    let host_end = address.find(['/', '?', '#']).unwrap_or(address.len());
    let authority = &address[..host_end];
    let has_password = authority.split_once(':').is_some_and(|(_, rest)| {
        // What follows is a port where it is a number.
        !rest.bytes().all(|byte| byte.is_ascii_digit()) || rest.is_empty()
    });
    let end = address.rfind('@').filter(|&end| end > 0)?;
    let host = &address[end + 1..];
    let is_user = match has_scheme {
        // Nothing that is read or written here has a port, and an `@` behind it.
        true if authority.contains(['@', ':']) => true,
        // A path writes `%40`, unless a version or a day follows. That of a file has no host.
        true => !authority.is_empty() && !is_version(host),
        false => has_password,
    };
    if !is_user {
        return None;
    }
    // A mark at the end of a word belongs to nothing.
    let is_host = host.starts_with(|next: char| next.is_alphanumeric() || next == '[');
    (is_host && (has_scheme || is_of_address(authority, host))).then_some(start..start + end)
}

/// Whether what follows an `@` without a scheme is a host. Names of interfaces have a version
/// there: `wasi:cli/stderr@0.2.6`.
fn is_of_address(authority: &str, host: &str) -> bool {
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let has_port = port.is_some_and(|port| port.starts_with(|it: char| it.is_ascii_digit()));
    has_port || (authority.contains('@') && !is_version(host))
}

/// Whether it is a number rather than the address of a host.
fn is_version(host: &str) -> bool {
    host.starts_with(|it: char| it.is_ascii_digit()) && host.matches('.').count() < 3
}

/// The values of parameters that are secret.
fn parameters_of(word: &str) -> impl Iterator<Item = Range<usize>> {
    let query = word.find('?').map_or(word.len(), |at| at + 1);
    let mut start = query;
    word[query..]
        .split_inclusive(['&', ';', '#'])
        .filter_map(move |part| {
            let from = start;
            start += part.len();
            let part = part.trim_end_matches(['&', ';', '#']);
            let (name, value) = part.split_once('=')?;
            let name = name.to_ascii_lowercase();
            let is_secret = SECRET_PARAMETERS.iter().any(|word| name.contains(word));
            let end = from + part.len();
            (is_secret && !value.is_empty()).then(|| end - value.len()..end)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_may_use_an_address_is_hidden() {
        for (text, shown) in [
            ("s3://key:secret@host/p", "s3://***@host/p"),
            ("s3://key:sec/r?t#@host/p", "s3://***@host/p"),
            ("http://user@host", "http://***@host"),
            ("s3://se/cret@host", "s3://***@host"),
            ("s3://se/cr?t@host.example/p", "s3://***@host.example/p"),
            ("s3://se/cret@10.0.0.1:9000", "s3://***@10.0.0.1:9000"),
            (
                "at `http://a:b@[::1]:9000`, no",
                "at `http://***@[::1]:9000`, no",
            ),
            ("user:secret@host:9092", "***@host:9092"),
            ("user:sec/ret@host:9092", "***@host:9092"),
            ("user:secret@10.0.0.1", "***@10.0.0.1"),
            (
                "https://h/p?X-Amz-Signature=ab&n=1",
                "https://h/p?X-Amz-Signature=***&n=1",
            ),
            (
                "https://h?a=1&token=t;sas_sig=s",
                "https://h?a=1&token=***;sas_sig=***",
            ),
            ("http://u:p@h?token=t", "http://***@h?token=***"),
        ] {
            assert_eq!(hidden(text), shown);
        }
        for text in [
            "s3://bucket/prefix@2024",
            "s3://bucket/a%40b",
            "file:///home/ann@host/a",
            "http://host:9000/prefix",
            "host:9092",
            "ann@example.org",
            "events/a@b.jsonl",
            "@12:30",
            "is it so? a = b",
            "{ a: 1 } @ b",
            "https://host/?page=2",
            "12:30@",
            "sluicebox:plugin/operators@0.8.0",
            "wasi:io@0.2.6",
        ] {
            assert_eq!(hidden(text), text);
        }
    }

    proptest! {
        #[test]
        fn places_ascend_and_are_in_the_text(text in "[a-c:/@?&=#;\" é]{0,40}") {
            let mut last = 0;
            for place in find(&text) {
                prop_assert!(last <= place.start && place.start < place.end);
                last = place.end;
            }
            let _ = hidden(&text);
        }

        /// Whatever characters it has.
        #[test]
        fn a_password_is_hidden(
            password in "[!#-&(-;=?-_a-~é]{6,20}",
            scheme in "(s3|https|kafka)://",
            rest in "(:9000)?(/[a-z]{0,5})?",
        ) {
            let shown = hidden(&format!("{scheme}user:{password}@host{rest}")).into_owned();
            prop_assert_eq!(shown, format!("{scheme}***@host{rest}"));
            let quoted = format!("{scheme}user:{password}\"' <{password}@host{rest}");
            prop_assert!(has_any(&quoted));
        }
    }
}
