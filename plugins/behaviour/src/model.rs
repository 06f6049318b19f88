//! Counts what follows what, and says how probable it is.

use sluicebox_sdk::prelude::*;

use crate::steps::{Question, Step};
use crate::{Next, Place};

/// The inputs of a [`Model`]. Rows of the same time come in this order, so what is said
/// of a row depends on the steps before its time alone.
#[derive(Ports)]
pub enum Input<'a> {
    /// To be told how probable each next action is.
    Questions(Question<'a>),
    /// To be told of, if they are improbable.
    Judged(Step<'a>),
    /// To learn from.
    Learned(Step<'a>),
}

#[derive(Record)]
pub struct LastKey {
    pub last: Place,
}

/// How often each next action has followed what was before and last: one number for each
/// of both.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Counts {
    pub counts: Vec<u64>,
}

/// The outputs of a [`Model`].
#[derive(Ports, Debug, PartialEq)]
pub enum Output<'a> {
    Predictions(Prediction<'a>),
    Improbable(Improbable<'a>),
}

/// How probable each action is to be the next one.
#[derive(Record, Debug, PartialEq)]
pub struct Prediction<'a> {
    pub user_id: &'a str,
    pub before: Place,
    pub last: Place,
    pub at: Timestamp,
    /// How many steps were seen from `before` and `last`.
    pub seen: u64,
    pub view: f64,
    pub add: f64,
    pub remove: f64,
    pub checkout: f64,
    pub leave: f64,
}

/// What a user did although hardly anyone does.
#[derive(Record, Debug, PartialEq)]
pub struct Improbable<'a> {
    pub user_id: &'a str,
    pub before: Place,
    pub last: Place,
    pub next: Next,
    pub at: Timestamp,
    pub probability: f64,
}

/// A Markov model of second order: what is next depends on the last two actions. Keyed by
/// the last one, in order of event time.
///
/// Where the last two have been seen seldom, it goes by the last one alone; where that is
/// new, too, all actions are equally probable: `P(next | before, last) = (c(before, last,
/// next) + weight · P(next | last)) / (c(before, last) + weight)`, and `P(next | last) =
/// (c(last, next) + smoothing) / (c(last) + 5 · smoothing)`.
#[operator(process)]
pub struct Model {
    /// How often each action counts as seen before it is.
    #[parameter(default = 1.0)]
    pub smoothing: f64,
    /// How many steps from the last two actions count as much as all from the last one.
    #[parameter(default = 10.0)]
    pub weight: f64,
    /// How probable an action may be to be told as improbable.
    #[parameter(default = 0.01)]
    pub improbable: f64,
    /// How many steps from the last action have to be known before one is improbable.
    #[parameter(default = 100)]
    pub known: u64,
}

impl Process for Model {
    type Input<'a> = Input<'a>;
    type Key<'a> = LastKey;
    type State = Counts;
    type Output<'a> = Output<'a>;

    fn row<'a>(
        &self,
        counts: &mut Option<Counts>,
        row: Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let counts = counts.get_or_insert_default();
        match row {
            Input::Questions(question) => self.predict(counts, question, context),
            Input::Judged(step) => self.judge(counts, step, context),
            Input::Learned(step) => counts.learn(step.before, step.next),
        }
        Ok(())
    }
}

impl Model {
    fn predict<'a>(
        &self,
        counts: &Counts,
        question: Question<'a>,
        context: &mut Context<'a, Self>,
    ) {
        let Question {
            user_id,
            before,
            last,
        } = question;
        let [view, add, remove, checkout, leave] = self.probabilities(counts, before);
        context.emit(Output::Predictions(Prediction {
            user_id,
            before,
            last,
            at: context.time(),
            seen: counts.after(before).iter().sum(),
            view,
            add,
            remove,
            checkout,
            leave,
        }));
    }

    fn judge<'a>(&self, counts: &Counts, step: Step<'a>, context: &mut Context<'a, Self>) {
        let probability = self.probabilities(counts, step.before)[step.next as usize];
        let known: u64 = counts.counts.iter().sum();
        if known >= self.known && probability <= self.improbable {
            context.emit(Output::Improbable(Improbable {
                user_id: step.user_id,
                before: step.before,
                last: step.last,
                next: step.next,
                at: context.time(),
                probability,
            }));
        }
    }

    /// Of each next action, in the order of [`Next`].
    fn probabilities(&self, counts: &Counts, before: Place) -> [f64; Next::COUNT] {
        let mut of_last = [0; Next::COUNT];
        for after in counts.counts.chunks_exact(Next::COUNT) {
            for (sum, count) in of_last.iter_mut().zip(after) {
                *sum += count;
            }
        }
        let of_both = counts.after(before);
        let (all_of_last, all_of_both): (u64, u64) = (of_last.iter().sum(), of_both.iter().sum());
        let all_smoothed = all_of_last as f64 + Next::COUNT as f64 * self.smoothing;
        std::array::from_fn(|next| {
            let given_last = (of_last[next] as f64 + self.smoothing) / all_smoothed;
            (of_both[next] as f64 + self.weight * given_last) / (all_of_both as f64 + self.weight)
        })
    }
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            counts: vec![0; Place::COUNT * Next::COUNT],
        }
    }
}

impl Counts {
    fn after(&self, before: Place) -> &[u64] {
        let first = before as usize * Next::COUNT;
        &self.counts[first..first + Next::COUNT]
    }

    fn learn(&mut self, before: Place, next: Next) {
        self.counts[before as usize * Next::COUNT + next as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    fn model(known: u64) -> OneKey<Model> {
        let model = Model {
            smoothing: 1.0,
            weight: 2.0,
            improbable: 0.1,
            known,
        };
        OneKey::new(model, LastKey { last: Place::View })
    }

    fn step(before: Place, next: Next) -> Step<'static> {
        Step {
            user_id: "ann",
            before,
            last: Place::View,
            next,
        }
    }

    fn learn(model: &mut OneKey<Model>, before: Place, next: Next, times: usize) {
        for _ in 0..times {
            let outputs = model.row(Timestamp(0), Input::Learned(step(before, next)));
            assert_eq!(outputs, Ok(vec![]));
        }
    }

    fn ask(model: &mut OneKey<Model>, before: Place) -> (u64, [f64; Next::COUNT]) {
        let question = Question {
            user_id: "ann",
            before,
            last: Place::View,
        };
        let outputs = model.row(Timestamp(1), Input::Questions(question));
        match &outputs.expect("not rejected")[..] {
            [Output::Predictions(it)] => {
                (it.seen, [it.view, it.add, it.remove, it.checkout, it.leave])
            }
            others => panic!("{others:?}"),
        }
    }

    #[test]
    fn all_are_equally_probable_at_first() {
        assert_eq!(ask(&mut model(1), Place::Start), (0, [0.2; 5]));
    }

    #[test]
    fn what_is_known_of_both_actions_counts_more_with_each_step() {
        let mut model = model(1);
        learn(&mut model, Place::Start, Next::Add, 5);
        // Of the last action: (5 + 1) / (5 + 5).
        let (seen, probabilities) = ask(&mut model, Place::Add);
        assert_eq!((seen, probabilities[1]), (0, 2.0 * 0.6 / 2.0));
        learn(&mut model, Place::Add, Next::Leave, 3);
        let (seen, probabilities) = ask(&mut model, Place::Add);
        let of_last = 4.0 / 13.0;
        assert_eq!((seen, probabilities[4]), (3, (3.0 + 2.0 * of_last) / 5.0));
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_hardly_anyone_does_is_improbable_once_enough_is_known() {
        let judged = |model: &mut OneKey<Model>, next| {
            let step = step(Place::Start, next);
            let outputs = model.row(Timestamp(1), Input::Judged(step));
            outputs.expect("not rejected").len()
        };
        for (known, told) in [(20, 1), (21, 0)] {
            let mut model = model(known);
            learn(&mut model, Place::Start, Next::Add, 20);
            assert_eq!(judged(&mut model, Next::Checkout), told);
            assert_eq!(judged(&mut model, Next::Add), 0);
        }
    }
}
