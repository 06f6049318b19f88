//! Finds the valid name that somebody most likely meant by an unknown one.

/// The candidate that `name` was most likely meant to be.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = folded(name);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let valid = folded(candidate);
            let distance = strsim::damerau_levenshtein(&written, &valid);
            let length = written.chars().count().max(valid.chars().count());
            // Among equal distances, the one that shares more: `int46` is `int64`.
            let apart = 1.0 - strsim::jaro_winkler(&written, &valid);
            (distance * 3 <= length).then_some((distance as f64 + apart, candidate))
        })
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// The help for an unknown name: the nearest valid name, and all valid names.
pub(crate) fn help<'a>(
    name: &str,
    nouns: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let all = listed(&candidates);
    match (nearest(name, candidates.iter().copied()), candidates.len()) {
        (_, 0) => format!("there are no {nouns}"),
        (Some(nearest), 1) => format!("did you mean `{nearest}`?"),
        (Some(nearest), _) => format!("did you mean `{nearest}`? The {nouns} are: {all}"),
        (None, _) => format!("the {nouns} are: {all}"),
    }
}

/// At most this many names are listed in one message.
const LISTED_MAX: usize = 24;

/// `a`, `b` and `c` as "a, b, c".
pub(crate) fn listed(names: &[&str]) -> String {
    let mut text = names[..names.len().min(LISTED_MAX)].join(", ");
    if names.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - LISTED_MAX));
    }
    text
}

/// `a`, `b` and `c` as "a, b or c".
pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [names @ .., last] => format!("{} or {last}", names.join(", ")),
    }
}

/// The name without case and separators: `userId`, `user-id` and `user_id` are
/// spellings of one name.
fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        // No valid name is that long, and the distance takes quadratic time.
        .take(100)
        .collect()
}
