use super::identity::identity;
use super::rows::{Answered, Part, Parts};
use super::stages::{Combined, Wanted};
use crate::OneKey;
use crate::ports::two::{OneOf, Two};
use crate::prelude::*;
use crate::record::{And, Named};

#[derive(Record, Clone, Debug, PartialEq)]
struct Cart {
    id: i64,
    items: Vec<String>,
}

#[derive(Record)]
struct Item {
    item: String,
}

#[derive(Record, Clone)]
struct Price {
    cents: i64,
}

#[derive(Record, Debug, PartialEq)]
struct Priced {
    id: i64,
    cents: Vec<Option<i64>>,
}

/// The prices of a cart's items.
#[operator(lookup)]
struct Prices {}

impl Lookup for Prices {
    type Row = Cart;
    type Key = Item;
    type Found = Price;
    type Output = Priced;

    fn wanted(&self, cart: &Cart) -> Result<Vec<Item>, Reject> {
        if cart.id < 0 {
            reject!("id {}", cart.id);
        }
        let items = cart.items.iter();
        Ok(items.map(|item| Item { item: item.clone() }).collect())
    }

    fn found(&self, cart: Cart, found: Vec<Option<Price>>) -> Result<Vec<Priced>, Reject> {
        let cents: Vec<Option<i64>> = found
            .iter()
            .map(|it| it.as_ref().map(|it| it.cents))
            .collect();
        if cents.contains(&Some(0)) {
            reject!("a price of 0");
        }
        let priced = Priced { id: cart.id, cents };
        Ok(vec![priced])
    }
}

export!(Prices);

fn cart(id: i64, items: &[&str]) -> Cart {
    let items = items.iter().map(|&item| item.to_owned()).collect();
    Cart { id, items }
}

type Stage = OneKey<Combined<Prices>>;

/// A row that waits for so many answers.
fn waiting(id: i64, parts: u32) -> Answered<Prices> {
    let [lookup_high, lookup_low] = [1, 2];
    let parts = Parts {
        lookup_high,
        lookup_low,
        lookup_parts: parts,
    };
    Two::first(And(parts, Named::new(cart(id, &[]))))
}

fn answer(part: u32, cents: Option<i64>) -> Answered<Prices> {
    let part = Part {
        lookup_high: 1,
        lookup_low: 2,
        lookup_part: part,
    };
    let found = cents.map(|cents| Price { cents });
    Two::second(And(part, Named::new(found)))
}

fn priced(id: i64, cents: &[Option<i64>]) -> Vec<Priced> {
    let cents = cents.to_vec();
    vec![Priced { id, cents }]
}

#[test]
fn a_row_and_its_keys_have_one_identity() {
    let mut stage = OneKey::new(Wanted(Prices {}), ());
    let rows = stage.row(Timestamp(5), cart(7, &["tea", "pot"])).unwrap();
    let mut parts = Vec::new();
    let mut identities = Vec::new();
    for row in rows {
        match row.0 {
            OneOf::First(And(of, row)) => {
                assert_eq!((of.lookup_parts, row.value), (2, cart(7, &["tea", "pot"])));
                identities.push([of.lookup_high, of.lookup_low]);
            }
            OneOf::Second(And(of, key)) => {
                parts.push((of.lookup_part, key.item));
                identities.push([of.lookup_high, of.lookup_low]);
            }
        }
    }
    assert_eq!(parts, [(0, "tea".to_owned()), (1, "pot".to_owned())]);
    let expected = identity(&cart(7, &["tea", "pot"]), Timestamp(5));
    assert_eq!(identities, [expected; 3]);
    assert!(stage.row(Timestamp(5), cart(-1, &[])).is_err());
    assert!(stage.state().is_none());
}

/// Every type of field, and where texts and lists end, is a part of it.
#[test]
fn rows_that_differ_have_other_identities() {
    #[derive(Record, Clone)]
    struct Row {
        flag: Option<bool>,
        small: u8,
        float: f64,
        texts: Vec<String>,
        amount: Decimal<2>,
        at: Timestamp,
    }
    let row = Row {
        flag: None,
        small: 1,
        float: 0.5,
        texts: vec!["ab".to_owned(), "c".to_owned()],
        amount: Decimal::from_units(100),
        at: Timestamp(1),
    };
    let changed = |change: fn(&mut Row)| {
        let mut row = row.clone();
        change(&mut row);
        identity(&row, Timestamp(9))
    };
    let all = [
        changed(|_| {}),
        changed(|row| row.flag = Some(false)),
        changed(|row| row.small = 2),
        changed(|row| row.float = -0.5),
        changed(|row| row.texts = vec!["a".to_owned(), "bc".to_owned()]),
        changed(|row| row.texts = vec!["abc".to_owned()]),
        changed(|row| row.amount = Decimal::from_units(101)),
        changed(|row| row.at = Timestamp(2)),
        identity(&row, Timestamp(8)),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(all[..at].iter().all(|other| other != one), "{at}");
        assert_ne!(one[0], one[1]);
    }
    assert_eq!(identity(&row, Timestamp(9)), all[0]);
}

#[test]
fn a_row_waits_for_all_of_its_answers() {
    let mut stage = Stage::new(Combined(Prices {}), ());
    let mut take = |row| stage.row(Timestamp(5), row).unwrap();
    assert_eq!(take(answer(1, None)), []);
    assert_eq!(take(waiting(7, 3)), []);
    assert_eq!(take(answer(2, Some(30))), []);
    assert_eq!(
        take(answer(0, Some(10))),
        priced(7, &[Some(10), None, Some(30)])
    );
    assert!(stage.state().is_none());
}

#[test]
fn a_row_that_wants_nothing_waits_for_nothing() {
    let mut stage = Stage::new(Combined(Prices {}), ());
    assert_eq!(
        stage.row(Timestamp(5), waiting(7, 0)).unwrap(),
        priced(7, &[])
    );
    assert!(stage.state().is_none());
}

#[test]
fn equal_rows_have_an_answer_each() {
    let mut stage = Stage::new(Combined(Prices {}), ());
    let mut take = |row| stage.row(Timestamp(5), row).unwrap();
    assert_eq!(take(waiting(7, 2)), []);
    assert_eq!(take(answer(1, Some(20))), []);
    assert_eq!(take(answer(1, Some(21))), []);
    assert_eq!(take(answer(0, Some(10))), priced(7, &[Some(10), Some(20)]));
    assert_eq!(take(answer(0, Some(11))), []);
    assert_eq!(take(waiting(7, 2)), priced(7, &[Some(11), Some(21)]));
    assert!(stage.state().is_none());
}

#[test]
fn of_a_row_that_fails_nothing_stays() {
    let mut stage = Stage::new(Combined(Prices {}), ());
    assert_eq!(stage.row(Timestamp(5), waiting(7, 1)), Ok(vec![]));
    assert!(stage.row(Timestamp(5), answer(0, Some(0))).is_err());
    assert!(stage.state().is_some());
    assert_eq!(stage.advance(Timestamp(6)), Ok(vec![]));
    assert!(stage.state().is_none());
}

#[test]
fn both_steps_are_taken_in_a_test() {
    let tea = |item: &Item| (item.item == "tea").then_some(Price { cents: 300 });
    let found = Prices {}.look_up(cart(7, &["pot", "tea"]), tea);
    assert_eq!(found, Ok(priced(7, &[None, Some(300)])));
    assert!(Prices {}.look_up(cart(-1, &[]), tea).is_err());
}
