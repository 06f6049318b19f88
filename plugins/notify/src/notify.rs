//! Tells each user the best of what there is, and not too often.

use sluicebox_sdk::prelude::*;

use crate::{News, Suggestion, UserKey};

/// When the user may be told something again.
const NEXT: &str = "next";

#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Waiting {
    /// The best of what the user was not told yet.
    pub best: Option<Best>,
    /// How many others there are.
    pub others: i64,
}

#[derive(Record, Clone, Debug, PartialEq)]
pub struct Best {
    pub kind: News,
    pub author: String,
    pub post_id: String,
    pub actors: i64,
    pub score: i64,
}

#[derive(Record, Debug, PartialEq)]
pub struct Notification<'a> {
    pub user_id: &'a str,
    pub at: Timestamp,
    pub kind: News,
    pub author: String,
    pub post_id: String,
    pub actors: i64,
    pub score: i64,
    /// How many other suggestions there were since the last one.
    pub others: i64,
}

/// The best suggestion since the last one, at most one each `every_ms`. Keyed by user, in
/// order of event time.
#[operator(process)]
pub struct Notify {
    #[parameter(default = 3_600_000)]
    pub every_ms: i64,
}

impl Process for Notify {
    type Input<'a> = Suggestion<'a>;
    type Key<'a> = UserKey<'a>;
    type State = Waiting;
    type Output<'a> = Notification<'a>;

    fn row<'a>(
        &self,
        waiting: &mut Option<Waiting>,
        suggestion: Suggestion<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if waiting.is_none() {
            // There may be better ones at the same time.
            context.set(NEXT, Timestamp(context.time().0.saturating_add(1)));
        }
        let waiting = waiting.get_or_insert_default();
        let new = Best {
            kind: suggestion.kind,
            author: suggestion.author.to_owned(),
            post_id: suggestion.post_id.to_owned(),
            actors: suggestion.actors,
            score: suggestion.score,
        };
        match &mut waiting.best {
            None => waiting.best = Some(new),
            Some(best) => {
                waiting.others += 1;
                if new.place() > best.place() {
                    *best = new;
                }
            }
        }
        Ok(())
    }

    fn timer<'a>(
        &self,
        waiting: &mut Option<Waiting>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let Some(Waiting {
            best: Some(best),
            others,
        }) = waiting.take()
        else {
            return Ok(());
        };
        context.emit(Notification {
            user_id: context.key().user_id,
            at: timer.time,
            kind: best.kind,
            author: best.author,
            post_id: best.post_id,
            actors: best.actors,
            score: best.score,
            others,
        });
        *waiting = Some(Waiting::default());
        context.set(NEXT, Timestamp(timer.time.0.saturating_add(self.every_ms)));
        Ok(())
    }
}

impl Best {
    /// Of equal scores, names decide, so that the order in which they come does not.
    fn place(&self) -> (i64, News, &str, &str) {
        (self.score, self.kind, &self.author, &self.post_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    /// The times, posts and others of what a user is told of suggestions of these times,
    /// posts and scores.
    fn told(suggestions: &[(i64, &str, i64)], until: i64) -> Vec<(i64, String, i64)> {
        let mut user = OneKey::new(Notify { every_ms: 100 }, UserKey { user_id: "ann" });
        let mut told = Vec::new();
        for &(time, post_id, score) in suggestions {
            told.extend(user.advance(Timestamp(time)).expect("not rejected"));
            let suggestion = Suggestion {
                user_id: "ann",
                kind: News::Like,
                author: "bob",
                post_id,
                actors: 1,
                score,
            };
            told.extend(user.row(Timestamp(time), suggestion).expect("not rejected"));
        }
        told.extend(user.advance(Timestamp(until)).expect("not rejected"));
        if until > 1_000 {
            assert_eq!(
                user.state(),
                None,
                "nothing is kept of a user who waits for nothing"
            );
        }
        let what = |it: Notification<'_>| (it.at.0, it.post_id, it.others);
        told.into_iter().map(what).collect()
    }

    fn expected(told: &[(i64, &str, i64)]) -> Vec<(i64, String, i64)> {
        let owned = |&(at, post, others): &(i64, &str, i64)| (at, post.to_owned(), others);
        told.iter().map(owned).collect()
    }

    #[test]
    fn the_best_of_the_same_time_is_told() {
        let suggestions = [(5, "p1", 1), (5, "p2", 7), (5, "p3", 7), (5, "p0", 3)];
        assert_eq!(told(&suggestions, 6), expected(&[(6, "p3", 3)]));
    }

    #[test]
    fn the_next_one_waits_until_it_may_be_told() {
        let suggestions = [(5, "p1", 1), (7, "p2", 2), (105, "p3", 1), (106, "p4", 1)];
        let all = [(6, "p1", 0), (106, "p2", 1), (206, "p4", 0)];
        assert_eq!(told(&suggestions, 205), expected(&all[..2]));
        assert_eq!(told(&suggestions, 2_000), expected(&all));
    }

    #[test]
    fn after_a_pause_a_user_is_told_at_once() {
        let suggestions = [(5, "p1", 1), (300, "p2", 2)];
        assert_eq!(
            told(&suggestions, 2_000),
            expected(&[(6, "p1", 0), (301, "p2", 0)])
        );
    }
}
