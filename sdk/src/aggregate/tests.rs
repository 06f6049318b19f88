use expect_test::expect;

use super::*;
use crate::bindings::sluicebox::plugin::columns::Values;
use crate::prelude::*;

#[derive(Record)]
struct Word<'a> {
    word: &'a str,
    kind: Kind,
}

#[derive(Symbol, Clone, Copy)]
enum Kind {
    Noun,
    Verb,
}

#[derive(Record, Clone, Debug, Default, PartialEq)]
struct Words {
    words: Vec<String>,
    letters: u64,
}

#[derive(Record)]
struct Longest<'a> {
    longest: &'a str,
    letters: u64,
    start: Timestamp,
}

/// The longest word and the total number of letters of a group.
#[operator]
struct LongestWord {
    #[parameter(default = 10)]
    max_letters: usize,
}

impl Aggregate for LongestWord {
    type Input<'a> = Word<'a>;
    type State = Words;
    type Output<'a> = Option<Longest<'a>>;

    fn accumulate(&self, words: &mut Words, row: Word<'_>) -> Result<(), Reject> {
        words.words.push(row.word.to_owned());
        words.letters += row.word.len() as u64;
        if row.word.len() > self.max_letters {
            reject!("`{}` is too long for a {}", row.word, row.kind.text());
        }
        Ok(())
    }

    fn merge(&self, words: &mut Words, later: Words) {
        words.words.extend(later.words);
        words.letters += later.letters;
    }

    fn finish<'a>(&'a self, words: &'a Words, window: Window) -> Option<Longest<'a>> {
        Some(Longest {
            longest: words.words.iter().max_by_key(|word| word.len())?,
            letters: words.letters,
            start: window.start,
        })
    }
}

const LONGEST: ColumnarAggregate<LongestWord, Window> = ColumnarAggregate {
    aggregate: LongestWord { max_letters: 5 },
    take_back: never::<LongestWord, Window>,
};

fn grouped(columns: Batch, groups: &[u32]) -> Grouped {
    Grouped {
        columns,
        groups: groups.to_vec(),
        taken_back: Vec::new(),
    }
}

fn input(words: &[&str]) -> Batch {
    let rows: Vec<Word<'_>> = words
        .iter()
        .map(|&word| Word {
            word,
            kind: Kind::Noun,
        })
        .collect();
    columns(&rows)
}

fn words(words: &[&str]) -> Words {
    Words {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        letters: words.iter().map(|word| word.len() as u64).sum(),
    }
}

fn states(existing: &[Words], groups: u32) -> States {
    States {
        columns: columns(existing),
        groups,
    }
}

fn read(batch: &Batch) -> Vec<Words> {
    read_all(batch, 0)
}

fn texts(rows: &answers::Rows) -> Vec<String> {
    let Values::Packed(packed) = &rows.columns.columns[0].values else {
        panic!("not texts: {:?}", rows.columns.columns[0]);
    };
    let mut start = 0;
    let ends = packed.ends.iter().map(|&end| {
        let text = &packed.data[start..end as usize];
        start = end as usize;
        String::from_utf8_lossy(text).into_owned()
    });
    ends.collect()
}

#[test]
fn rows_go_to_their_groups_and_new_groups_start_empty() {
    let given = states(&[words(&["old"])], 3);
    let answer = accumulate(
        &LONGEST,
        &grouped(input(&["a", "b", "c"]), &[2, 0, 2]),
        &given,
    );
    assert_eq!(
        read(&answer.states),
        [words(&["old", "b"]), words(&[]), words(&["a", "c"])]
    );
    assert!(answer.rejects.is_empty());
}

#[test]
fn rejected_rows_do_not_change_states() {
    let rows = ["a", "too long", "b", "much too long", "c", "d"];
    let groups = [0, 0, 0, 1, 1, 0];
    let given = states(&[words(&["old"])], 2);
    let answer = accumulate(&LONGEST, &grouped(input(&rows), &groups), &given);
    assert_eq!(
        read(&answer.states),
        [words(&["old", "a", "b", "d"]), words(&["c"])]
    );
    let rejects: Vec<String> = answer
        .rejects
        .iter()
        .map(|reject| format!("{} {}", reject.row, reject.reason))
        .collect();
    expect![[r#"
        1 `too long` is too long for a noun
        3 `much too long` is too long for a noun"#]]
    .assert_eq(&rejects.join("\n"));
}

#[test]
fn cuts_do_not_matter_even_around_rejects() {
    let rows = ["a", "too long", "bb", "much too long", "ccc", "dddd", "e"];
    let groups = [0, 1, 1, 0, 1, 0, 0];
    let whole = accumulate(&LONGEST, &grouped(input(&rows), &groups), &states(&[], 2));
    for cut in 0..=rows.len() {
        let first = accumulate(
            &LONGEST,
            &grouped(input(&rows[..cut]), &groups[..cut]),
            &states(&[], 2),
        );
        let given = States {
            columns: first.states,
            groups: 2,
        };
        let second = accumulate(
            &LONGEST,
            &grouped(input(&rows[cut..]), &groups[cut..]),
            &given,
        );
        assert_eq!(read(&second.states), read(&whole.states), "cut at {cut}");
        assert_eq!(first.rejects.len() + second.rejects.len(), 2);
    }
}

#[test]
fn results_after_each_row_are_of_that_moment() {
    // The results borrow from states that the next row changes.
    let rows = ["a", "bbb", "cc", "too long", "dddd"];
    let groups = [0, 0, 1, 1, 0];
    let keys = columns(&[(); 2]);
    let rows_given = grouped(input(&rows), &groups);
    let answer = accumulate_each(&LONGEST, &rows_given, &states(&[], 2), &keys);
    assert_eq!(answer.results.parents, [0, 1, 2, 4]);
    assert_eq!(texts(&answer.results), ["a", "bbb", "cc", "dddd"]);
    assert_eq!(answer.rejects.len(), 1);
    let good = accumulate_each(
        &LONGEST,
        &grouped(input(&rows[..3]), &groups[..3]),
        &states(&[], 2),
        &keys,
    );
    assert_eq!(texts(&good.results), ["a", "bbb", "cc"]);
    let Values::Uint64(letters) = &good.results.columns.columns[1].values else {
        panic!("not numbers");
    };
    assert_eq!(letters, &[1, 4, 2]);
}

#[test]
fn merge_folds_the_states_of_each_group_in_order() {
    let given = [
        words(&["a"]),
        words(&["b", "c"]),
        words(&["d"]),
        words(&[]),
        words(&["e"]),
    ];
    let merged = merge(&LONGEST.aggregate, &columns(&given), &[0, 0, 1, 2, 2]);
    assert_eq!(
        read(&merged),
        [words(&["a", "b", "c"]), words(&["d"]), words(&["e"])]
    );
}

#[test]
fn finish_gives_results_to_their_states() {
    let given = [words(&["a", "bb"]), words(&[]), words(&["ccc"])];
    let windows = Windows {
        starts: vec![1, 2, 3],
        ends: vec![10, 20, 30],
    };
    let keys = columns(&[(); 3]);
    let results = finish(&LONGEST.aggregate, &columns(&given), &keys, &windows);
    assert_eq!(results.parents, [0, 2]);
    assert_eq!(texts(&results), ["bb", "ccc"]);
    let Values::Int64(starts) = &results.columns.columns[2].values else {
        panic!("not times");
    };
    assert_eq!(starts, &[1, 3]);
}

#[test]
fn a_row_that_cannot_be_read_is_rejected() {
    #[derive(Record)]
    struct Raw<'a> {
        word: &'a str,
        kind: &'a str,
    }
    let raw = ["noun", "adverb", "verb"].map(|kind| Raw { word: "a", kind });
    let answer = accumulate(
        &LONGEST,
        &grouped(columns(&raw), &[0, 0, 0]),
        &states(&[], 1),
    );
    assert_eq!(read(&answer.states), [words(&["a", "a"])]);
    assert_eq!(answer.rejects[0].row, 1);
    assert_eq!(
        answer.rejects[0].reason,
        "field `kind`: expected `noun` or `verb`, found `adverb`"
    );
}

#[operator(retracts)]
struct Letters {}

impl Aggregate for Letters {
    type Input<'a> = Word<'a>;
    type State = Words;
    type Output<'a> = Option<Longest<'a>>;

    fn accumulate(&self, words: &mut Words, row: Word<'_>) -> Result<(), Reject> {
        if row.word.is_empty() {
            reject!("no word");
        }
        words.words.push(row.word.to_owned());
        words.letters += row.word.len() as u64;
        Ok(())
    }

    fn merge(&self, words: &mut Words, later: Words) {
        words.words.extend(later.words);
        words.letters += later.letters;
    }

    fn finish<'a>(&'a self, words: &'a Words, window: Window) -> Option<Longest<'a>> {
        Some(Longest {
            longest: words.words.last()?,
            letters: words.letters,
            start: window.start,
        })
    }
}

impl Retract for Letters {
    fn retract(&self, words: &mut Words, row: Word<'_>) -> Result<(), Reject> {
        let Some(at) = words.words.iter().position(|word| word == row.word) else {
            reject!("`{}` is not there", row.word);
        };
        words.words.remove(at);
        words.letters -= row.word.len() as u64;
        Ok(())
    }
}

#[test]
fn rows_are_taken_back_in_their_turn() {
    assert!(shape_retracting::<Letters, _>().retracts);
    assert!(!shape::<LongestWord, _>().retracts);
    let letters = ColumnarAggregate {
        aggregate: Letters {},
        take_back: Letters::retract,
    };
    let rows = ["a", "bb", "a", "ccc", "bb", "d"];
    let taken_back = |rows: &[u32], from: &[&str]| Grouped {
        taken_back: rows.to_vec(),
        ..grouped(input(from), &vec![0; from.len()])
    };
    let keys = columns(&[()]);
    let answer = accumulate_each(
        &letters,
        &taken_back(&[2, 4], &rows),
        &states(&[], 1),
        &keys,
    );
    assert_eq!(read(&answer.states), [words(&["ccc", "d"])]);
    assert_eq!(answer.results.parents, [0, 1, 2, 3, 4, 5]);
    assert_eq!(texts(&answer.results), ["a", "bb", "bb", "ccc", "ccc", "d"]);
    // Around a rejected row, and one whose row was never there.
    let rows = ["a", "", "a", "bb"];
    let answer = accumulate(&letters, &taken_back(&[2, 3], &rows), &states(&[], 1));
    assert_eq!(read(&answer.states), [words(&[])]);
    let rejected: Vec<u32> = answer.rejects.iter().map(|reject| reject.row).collect();
    assert_eq!(rejected, [1, 3]);
}

#[derive(Record)]
struct Speaker {
    name: String,
}

/// Tells the longest word, and who said it, by a name that results borrow.
#[operator]
struct Said {}

impl Aggregate<Group<Speaker>> for Said {
    type Input<'a> = Word<'a>;
    type State = Words;
    type Output<'a> = Longest<'a>;

    fn accumulate(&self, words: &mut Words, row: Word<'_>) -> Result<(), Reject> {
        LONGEST.aggregate.accumulate(words, row)
    }

    fn merge(&self, words: &mut Words, later: Words) {
        LONGEST.aggregate.merge(words, later);
    }

    fn finish<'a>(&'a self, words: &'a Words, speaker: &'a Group<Speaker>) -> Longest<'a> {
        Longest {
            longest: &speaker.key.name,
            letters: words.letters,
            start: speaker.window.start,
        }
    }
}

#[test]
fn results_know_the_key_of_their_group() {
    let keys = shape::<Said, _>().key;
    let names: Vec<&str> = keys.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["name"]);
    assert!(shape::<LongestWord, _>().key.is_empty());

    let said = ColumnarAggregate {
        aggregate: Said {},
        take_back: never::<Said, Group<Speaker>>,
    };
    let speakers = |names: &[&str]| {
        let named = |name: &&str| Speaker {
            name: (*name).to_owned(),
        };
        columns(&names.iter().map(named).collect::<Vec<_>>())
    };
    let keys = speakers(&["ann", "bob"]);
    let windows = Windows {
        starts: vec![1, 2],
        ends: vec![10, 20],
    };
    let given = columns(&[words(&["a"]), words(&[])]);
    let results = finish(&said.aggregate, &given, &keys, &windows);
    assert_eq!(texts(&results), ["ann", "bob"]);

    // Also around a rejected row, for which all rows are folded once more.
    let rows = ["a", "bbb", "too long", "cc"];
    let rows = grouped(input(&rows), &[1, 0, 0, 1]);
    let answer = accumulate_each(&said, &rows, &states(&[], 2), &keys);
    assert_eq!(answer.results.parents, [0, 1, 3]);
    assert_eq!(texts(&answer.results), ["bob", "ann", "bob"]);
}
