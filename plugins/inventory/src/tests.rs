use super::*;
use sluicebox_sdk::OneKey;

const MINUTE: i64 = 60_000;

/// An item whose reservations expire after 10 minutes, and of which few are left at 2.
fn item() -> OneKey<Inventory> {
    let inventory = Inventory {
        hold_ms: 10 * MINUTE,
        low: 2,
        max_reservations: 3,
    };
    OneKey::new(inventory, ItemKey { item_id: "tea" })
}

/// Takes a row at a minute, and returns what it puts out, a line each.
fn take(item: &mut OneKey<Inventory>, minute: i64, row: Input<'_>) -> Vec<String> {
    shown(item.row(Timestamp(minute * MINUTE), row))
}

fn act(
    item: &mut OneKey<Inventory>,
    minute: i64,
    user_id: &str,
    action: Action,
    quantity: i64,
) -> Vec<String> {
    let request = Request {
        user_id,
        action,
        quantity,
    };
    take(item, minute, Input::Requests(request))
}

fn stock(item: &mut OneKey<Inventory>, minute: i64, change: i64) -> Vec<String> {
    take(item, minute, Input::Stock(StockChange { change }))
}

fn advance(item: &mut OneKey<Inventory>, minute: i64) -> Vec<String> {
    shown(item.advance(Timestamp(minute * MINUTE)))
}

fn shown(outputs: Result<Vec<Output<'_>>, Reject>) -> Vec<String> {
    let minute = |at: Timestamp| at.0 / MINUTE;
    let show = |output: &Output<'_>| match output {
        Output::Reserved(it) => format!(
            "{} reserves {}, {} left, until {}",
            it.user_id,
            it.quantity,
            it.left,
            minute(it.expires)
        ),
        Output::Refused(it) => format!(
            "{} cannot {:?} {} of {}: {:?} at {}",
            it.user_id,
            it.action,
            it.quantity,
            it.left,
            it.reason,
            minute(it.at)
        ),
        Output::Released(it) => format!(
            "{} releases {}: {:?} at {}",
            it.user_id,
            it.quantity,
            it.why,
            minute(it.at)
        ),
        Output::Sold(it) => format!("{} buys {} at {}", it.user_id, it.quantity, minute(it.at)),
        Output::Low(it) => format!("only {} left at {}", it.left, minute(it.at)),
    };
    let outputs = outputs.expect("nothing is rejected");
    outputs.iter().map(show).collect()
}

fn left(item: &OneKey<Inventory>) -> i64 {
    item.state().map_or(0, |item| item.left)
}

#[test]
fn what_is_added_is_reserved_until_it_is_sold_out() {
    let mut tea = item();
    assert_eq!(stock(&mut tea, 0, 5), [""; 0]);
    assert_eq!(
        act(&mut tea, 1, "ann", Action::Add, 3),
        ["ann reserves 3, 2 left, until 11", "only 2 left at 1"]
    );
    assert_eq!(
        act(&mut tea, 2, "bob", Action::Add, 3),
        ["bob cannot Add 3 of 2: SoldOut at 2"]
    );
    assert_eq!(
        act(&mut tea, 3, "bob", Action::Add, 2),
        ["bob reserves 2, 0 left, until 13"]
    );
    assert_eq!(
        act(&mut tea, 4, "cem", Action::Add, 1),
        ["cem cannot Add 1 of 0: SoldOut at 4"]
    );
}

#[test]
fn nothing_is_kept_of_an_item_without_stock() {
    let mut tea = item();
    assert_eq!(
        act(&mut tea, 0, "ann", Action::Add, 1),
        ["ann cannot Add 1 of 0: SoldOut at 0"]
    );
    assert_eq!(
        act(&mut tea, 0, "ann", Action::Checkout, 1),
        ["ann cannot Checkout 1 of 0: NotReserved at 0"]
    );
    assert_eq!(act(&mut tea, 0, "ann", Action::Remove, 1), [""; 0]);
    assert_eq!(tea.state(), None);
}

#[test]
fn a_checkout_sells_what_the_user_has_reserved() {
    let mut tea = item();
    stock(&mut tea, 0, 10);
    act(&mut tea, 0, "ann", Action::Add, 3);
    assert_eq!(
        act(&mut tea, 1, "ann", Action::Checkout, 4),
        ["ann cannot Checkout 4 of 7: NotReserved at 1"]
    );
    assert_eq!(
        act(&mut tea, 1, "ann", Action::Checkout, 2),
        ["ann buys 2 at 1"]
    );
    assert_eq!(
        act(&mut tea, 1, "bob", Action::Checkout, 1),
        ["bob cannot Checkout 1 of 7: NotReserved at 1"]
    );
    assert_eq!(advance(&mut tea, 10), ["ann releases 1: Abandoned at 10"]);
    assert_eq!(left(&tea), 8);
    assert_eq!(
        act(&mut tea, 10, "ann", Action::Checkout, 1),
        ["ann cannot Checkout 1 of 8: NotReserved at 10"]
    );
}

#[test]
fn removing_and_failing_release_no_more_than_is_reserved() {
    let mut tea = item();
    stock(&mut tea, 0, 10);
    act(&mut tea, 0, "ann", Action::Add, 3);
    assert_eq!(
        act(&mut tea, 1, "ann", Action::Remove, 1),
        ["ann releases 1: Removed at 1"]
    );
    assert_eq!(
        act(&mut tea, 2, "ann", Action::Failed, 9),
        ["ann releases 2: Failed at 2"]
    );
    assert_eq!(act(&mut tea, 3, "ann", Action::Remove, 1), [""; 0]);
    assert_eq!(left(&tea), 10);
    assert_eq!(advance(&mut tea, 60), [""; 0], "its timer is cancelled");
}

#[test]
fn a_reservation_is_abandoned_exactly_at_its_time() {
    let mut tea = item();
    stock(&mut tea, 0, 10);
    act(&mut tea, 0, "ann", Action::Add, 1);
    act(&mut tea, 2, "bob", Action::Add, 2);
    act(&mut tea, 2, "cem", Action::Add, 3);
    act(&mut tea, 4, "ann", Action::Add, 1);
    act(&mut tea, 1, "ann", Action::Add, 1);
    assert_eq!(shown(tea.advance(Timestamp(12 * MINUTE - 1))), [""; 0]);
    assert_eq!(
        advance(&mut tea, 12),
        [
            "bob releases 2: Abandoned at 12",
            "cem releases 3: Abandoned at 12"
        ]
    );
    assert_eq!(
        advance(&mut tea, 14),
        ["ann releases 3: Abandoned at 14"],
        "since she added it last"
    );
    assert_eq!(left(&tea), 10);
}

#[test]
fn all_reservations_are_released_when_the_inputs_have_ended() {
    let mut tea = item();
    stock(&mut tea, 0, 10);
    act(&mut tea, 3, "bob", Action::Add, 2);
    act(&mut tea, 1, "ann", Action::Add, 1);
    assert_eq!(
        shown(tea.advance(END)),
        [
            "ann releases 1: Abandoned at 11",
            "bob releases 2: Abandoned at 13"
        ]
    );
}

#[test]
fn what_is_written_off_is_not_reserved_any_more() {
    let mut tea = item();
    stock(&mut tea, 0, 6);
    act(&mut tea, 1, "ann", Action::Add, 2);
    act(&mut tea, 2, "bob", Action::Add, 3);
    assert_eq!(
        stock(&mut tea, 3, -2),
        ["bob releases 3: WrittenOff at 3"],
        "the last to come is the first to go"
    );
    assert_eq!(left(&tea), 2);
    assert_eq!(
        stock(&mut tea, 4, -9),
        ["ann releases 2: WrittenOff at 4"],
        "more than there is"
    );
    assert_eq!(stock(&mut tea, 5, 6), [""; 0]);
    assert_eq!(
        act(&mut tea, 6, "ann", Action::Add, 2),
        ["ann cannot Add 2 of 1: SoldOut at 6"]
    );
}

#[test]
fn low_stock_is_told_again_after_there_was_more() {
    let mut tea = item();
    assert_eq!(stock(&mut tea, 0, 2), ["only 2 left at 0"]);
    assert_eq!(stock(&mut tea, 1, -1), [""; 0]);
    assert_eq!(act(&mut tea, 2, "ann", Action::Return, 2), [""; 0]);
    assert_eq!(
        act(&mut tea, 3, "bob", Action::Add, 1),
        ["bob reserves 1, 2 left, until 13", "only 2 left at 3"]
    );
    assert_eq!(advance(&mut tea, 13), ["bob releases 1: Abandoned at 13"]);
    assert_eq!(stock(&mut tea, 14, -3), ["only 0 left at 14"]);
}

#[test]
fn a_limited_number_of_users_have_reservations() {
    let mut tea = item();
    stock(&mut tea, 0, 100);
    for user in ["ann", "bob", "cem"] {
        act(&mut tea, 0, user, Action::Add, 1);
    }
    assert_eq!(
        act(&mut tea, 0, "dia", Action::Add, 1),
        ["dia cannot Add 1 of 97: TooMany at 0"]
    );
    assert_eq!(
        act(&mut tea, 0, "ann", Action::Add, 1),
        ["ann reserves 1, 96 left, until 10"],
        "she has one already"
    );
}

#[test]
fn quantities_that_cannot_be_are_rejected() {
    let mut tea = item();
    let none = Request {
        user_id: "ann",
        action: Action::Add,
        quantity: 0,
    };
    let rejected = tea.row(Timestamp(0), Input::Requests(none));
    let rejected = rejected.expect_err("it is 0");
    assert_eq!(rejected.reason(), "`quantity` is 0, expected at least 1");
    let change = StockChange { change: i64::MIN };
    let rejected = tea.row(Timestamp(0), Input::Stock(change));
    assert!(rejected.is_err());
    assert_eq!(tea.state(), None);
}
