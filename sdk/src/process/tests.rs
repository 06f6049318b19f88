use crate::prelude::*;
use crate::{OneKey, TIMERS_MAX};

#[derive(Record)]
struct Add {
    n: i64,
}

#[derive(Record)]
struct Order<'a> {
    order: &'a str,
}

#[derive(Ports)]
enum Input<'a> {
    Adds(Add),
    Orders(Order<'a>),
}

#[derive(Record)]
struct User<'a> {
    user: &'a str,
}

#[derive(Record, Clone, Debug, Default, PartialEq)]
struct Sum {
    sum: i64,
}

#[derive(Record, Debug, PartialEq)]
struct Fired {
    user: String,
    name: String,
    sum: i64,
    at: Timestamp,
}

#[derive(Record, Debug, PartialEq)]
struct Large {
    sum: i64,
}

#[derive(Ports, Debug, PartialEq)]
enum Output {
    Fired(Fired),
    Large(Large),
}

/// Sums numbers, and sets the timers that orders name: `name offset`.
#[operator(process)]
struct Sums {
    #[parameter(default = 100)]
    large: i64,
}

impl Process for Sums {
    type Input<'a> = Input<'a>;
    type Key<'a> = User<'a>;
    type State = Sum;
    type Output<'a> = Output;

    fn row<'a>(
        &self,
        sum: &mut Option<Sum>,
        row: Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        match row {
            Input::Adds(Add { n }) => {
                let sum = sum.get_or_insert_default();
                sum.sum += n;
                if sum.sum > self.large {
                    context.emit(Output::Large(Large { sum: sum.sum }));
                }
                if n < 0 {
                    reject!("{n} is below 0");
                }
            }
            Input::Orders(Order { order }) => {
                for order in order.split(',') {
                    let (name, offset) = order.split_once(' ').unwrap_or((order, "0"));
                    let offset: i64 = offset.parse().unwrap_or(0);
                    let base = context.time().0;
                    match name.strip_prefix("clock ") {
                        Some(_) => {}
                        None if name == "many" => {
                            for i in 0..=TIMERS_MAX {
                                context.set(&format!("t{i}"), Timestamp(base + offset));
                            }
                        }
                        None if name == "cancel" => context.cancel("a"),
                        None if name == "clock" => {
                            let due = Timestamp(context.now().0 + offset);
                            context.set_in_processing_time("clock", due);
                        }
                        None => context.set(name, Timestamp(base + offset)),
                    }
                }
            }
        }
        Ok(())
    }

    fn timer<'a>(
        &self,
        sum: &mut Option<Sum>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let user = context.key().user.to_owned();
        context.emit(Output::Fired(Fired {
            user,
            name: timer.name.to_owned(),
            sum: sum.as_ref().map_or(-1, |sum| sum.sum),
            at: context.time(),
        }));
        match timer.name {
            "clear" => *sum = None,
            "refuse" => {
                *sum = None;
                reject!("it refuses");
            }
            "again" => context.set("again", Timestamp(timer.time.0 + 10)),
            _ => {}
        }
        Ok(())
    }
}

fn sums() -> OneKey<Sums> {
    OneKey::new(Sums { large: 100 }, User { user: "ann" })
}

fn add(n: i64) -> Input<'static> {
    Input::Adds(Add { n })
}

fn order(order: &str) -> Input<'_> {
    Input::Orders(Order { order })
}

/// The names of the timers that fired, with their times.
fn names(outputs: Result<Vec<Output>, Reject>) -> String {
    let outputs = outputs.expect("nothing is rejected");
    let name = |output: &Output| match output {
        Output::Fired(fired) => format!("{} {}", fired.name, fired.at.0),
        Output::Large(large) => format!("large {}", large.sum),
    };
    outputs.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_shape_has_ports_key_and_state() {
    let shape = super::shape::<Sums>();
    let names = |ports: &[crate::private::ports::Port]| {
        ports
            .iter()
            .map(|port| port.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&shape.inputs), ["adds", "orders"]);
    assert_eq!(names(&shape.outputs), ["fired", "large"]);
    assert_eq!(shape.key[0].name, "user");
    assert_eq!(shape.state[0].name, "sum");
}

#[test]
fn rows_of_all_inputs_change_the_state_and_the_outputs() {
    let mut key = sums();
    assert_eq!(key.state(), None);
    assert_eq!(key.row(Timestamp(1), add(99)), Ok(vec![]));
    let large = Output::Large(Large { sum: 101 });
    assert_eq!(key.row(Timestamp(2), add(2)), Ok(vec![large]));
    assert_eq!(key.state(), Some(Sum { sum: 101 }));
}

#[test]
fn what_is_rejected_changes_nothing() {
    let mut key = sums();
    key.row(Timestamp(0), add(120)).expect("it is above 0");
    let rejected = key.row(Timestamp(1), add(-5)).expect_err("it is below 0");
    assert_eq!(rejected.reason(), "-5 is below 0");
    assert_eq!(key.state(), Some(Sum { sum: 120 }));
    key.row(Timestamp(2), order("refuse 5")).expect("a timer");
    let rejected = key.advance(Timestamp(7)).expect_err("it refuses");
    assert_eq!(rejected.reason(), "it refuses");
    assert_eq!(key.state(), Some(Sum { sum: 120 }));
    assert_eq!(key.advance(Timestamp(8)), Ok(vec![]), "the timer is gone");
}

#[test]
fn timers_fire_once_in_order_of_time_and_name() {
    let mut key = sums();
    key.row(Timestamp(0), order("b 20,c 10,a 20,d 30"))
        .expect("timers");
    assert_eq!(names(key.advance(Timestamp(9))), "");
    assert_eq!(names(key.advance(Timestamp(25))), "c 10, a 20, b 20");
    assert_eq!(names(key.advance(Timestamp(29))), "");
    assert_eq!(names(key.advance(Timestamp(30))), "d 30");
}

#[test]
fn a_timer_is_moved_and_cancelled_by_its_name() {
    let mut key = sums();
    key.row(Timestamp(0), order("a 10,b 10")).expect("timers");
    key.row(Timestamp(1), order("b 49")).expect("a timer");
    key.row(Timestamp(1), order("cancel")).expect("an order");
    assert_eq!(names(key.advance(Timestamp(49))), "");
    assert_eq!(names(key.advance(Timestamp(50))), "b 50");
}

#[test]
fn a_timer_behind_time_fires_at_once_with_what_set_it() {
    let mut key = sums();
    key.advance(Timestamp(100)).expect("no timers");
    assert_eq!(
        names(key.row(Timestamp(104), order("late -50"))),
        "late 104"
    );
    assert_eq!(names(key.row(Timestamp(104), order("not_yet -2"))), "");
    assert_eq!(names(key.advance(Timestamp(102))), "not_yet 102");
}

#[test]
fn time_in_a_row_does_not_wait_for_its_batch() {
    let mut key = sums();
    key.row(Timestamp(0), add(1)).expect("a number");
    key.row(Timestamp(0), order("clear 10")).expect("a timer");
    key.watermark_ms = 10;
    assert_eq!(names(key.row(Timestamp(11), add(5))), "clear 10");
    assert_eq!(key.state(), Some(Sum { sum: 5 }), "the timer came first");
}

#[test]
fn at_the_end_of_time_a_name_fires_once() {
    let mut key = sums();
    key.row(Timestamp(0), order("again 10,last 25"))
        .expect("timers");
    assert_eq!(names(key.advance(Timestamp(i64::MAX))), "again 10, last 25");
    assert_eq!(names(key.advance(Timestamp(i64::MAX))), "");
}

/// Says at each timer whether time has ended.
#[operator(process)]
struct Ends {}

#[derive(Record, Debug, PartialEq)]
struct End {
    has_ended: bool,
}

impl Process for Ends {
    type Input<'a> = Add;
    type Key<'a> = ();
    type State = ();
    type Output<'a> = End;

    fn row<'a>(
        &self,
        _: &mut Option<()>,
        row: Add,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        context.set("end", Timestamp(row.n));
        Ok(())
    }

    fn timer<'a>(
        &self,
        _: &mut Option<()>,
        _: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let has_ended = context.has_ended();
        context.emit(End { has_ended });
        Ok(())
    }
}

#[test]
fn a_process_knows_when_all_inputs_have_ended() {
    let mut key = OneKey::new(Ends {}, ());
    for (watermark, has_ended) in [(10, false), (i64::MAX, true)] {
        key.row(Timestamp(0), Add { n: 10 }).expect("a timer");
        let fired = key.advance(Timestamp(watermark));
        assert_eq!(fired, Ok(vec![End { has_ended }]));
        key.watermark_ms = 0;
    }
}

#[test]
fn timers_in_processing_time_follow_the_clock() {
    let mut key = sums();
    key.advance_clock(Timestamp(1_000)).expect("no timers");
    key.row(Timestamp(7), order("clock 500")).expect("a timer");
    assert_eq!(names(key.advance_clock(Timestamp(1_499))), "");
    key.advance(Timestamp(8)).expect("none in event time");
    assert_eq!(names(key.advance_clock(Timestamp(1_500))), "clock 8");
}

#[test]
fn a_key_has_a_limited_number_of_timers() {
    let mut key = sums();
    let rejected = key
        .row(Timestamp(0), order("many 5"))
        .expect_err("too many");
    assert_eq!(
        rejected.reason(),
        "it sets more than 1000 timers for its key"
    );
    assert_eq!(names(key.advance(Timestamp(10))), "", "it has set none");
}
