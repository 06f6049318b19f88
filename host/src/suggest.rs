//! Finds the valid name that somebody most likely meant by an unknown one.

/// The candidate that `name` was most likely meant to be: never that very name, which would
/// help nobody.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written: String = folded(name).collect();
    let letters_written = Letters::of(name);
    let mut cells_left = CELLS_MAX;
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .take(CANDIDATES_MAX)
        .filter_map(|candidate| {
            let letters_valid = Letters::of(candidate);
            let length = letters_written.length.max(letters_valid.length);
            // The distance is at least how many letters one has that the other has not.
            if letters_written.missing(&letters_valid) * 3 > length {
                return None;
            }
            let cells = letters_written.length * letters_valid.length;
            cells_left = cells_left.checked_sub(cells)?;
            let valid: String = folded(candidate).collect();
            let distance = strsim::damerau_levenshtein(&written, &valid);
            // Among equal distances, the one that shares more: `int46` is `int64`.
            let apart = 1.0 - strsim::jaro_winkler(&written, &valid);
            (distance * 3 <= length).then_some((distance as f64 + apart, candidate))
        })
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// Of more candidates than these, or those that take more steps to compare, only the
/// first are compared: a file may have thousands of wrong names, and a suggestion
/// for each.
const CANDIDATES_MAX: usize = 500;
const CELLS_MAX: usize = 5_000;

/// How often each letter occurs in a name, where some letters share a place.
struct Letters {
    counts: [u8; 64],
    length: usize,
}

impl Letters {
    fn of(name: &str) -> Self {
        let mut letters = Letters {
            counts: [0; 64],
            length: 0,
        };
        for letter in folded(name) {
            // They are at most `LENGTH_MAX`.
            letters.counts[letter as usize % 64] += 1;
            letters.length += 1;
        }
        letters
    }

    /// How many letters one of two names has that the other has not: the larger number.
    fn missing(&self, other: &Letters) -> usize {
        let pairs = self.counts.iter().zip(&other.counts);
        let (mut here, mut there) = (0, 0);
        for (one, other) in pairs {
            here += usize::from(one.saturating_sub(*other));
            there += usize::from(other.saturating_sub(*one));
        }
        here.max(there)
    }
}

/// The help for an unknown name: the nearest valid name, and all valid names.
pub(crate) fn help<'a>(
    name: &str,
    nouns: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    let candidates = candidates.into_iter();
    let candidates: Vec<&str> = candidates.filter(|candidate| *candidate != name).collect();
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
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .take(LENGTH_MAX)
}

/// No valid name is that long, and the distance takes quadratic time.
const LENGTH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let names = ["user_id", "item_id", "quantity"];
        assert_eq!(nearest("userId", names), Some("user_id"));
        assert_eq!(nearest("quantty", names), Some("quantity"));
        assert_eq!(nearest("price", names), None);
    }

    #[test]
    fn the_name_that_was_written_is_never_suggested() {
        let names = ["user_id", "item_id"];
        assert_eq!(nearest("user_id", ["user_id"]), None);
        assert_eq!(
            nearest("user_id", ["user_id", "user_ids"]),
            Some("user_ids")
        );
        assert_eq!(help("user_id", "fields", names), "the fields are: item_id");
        assert_eq!(
            help("user_id", "fields", ["user_id"]),
            "there are no fields"
        );
        assert_eq!(
            help("userid", "fields", names),
            "did you mean `user_id`? The fields are: user_id, item_id"
        );
    }

    #[test]
    fn the_work_for_a_suggestion_is_bounded() {
        let many: Vec<String> = (0..100_000).map(|n| format!("{n:0>90}")).collect();
        let names = || many.iter().map(String::as_str);
        let started = std::time::Instant::now();
        for _ in 0..100 {
            let wrong = "x".repeat(90);
            assert_eq!(nearest(&wrong, names()), None);
        }
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
