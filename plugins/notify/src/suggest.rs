//! Says how much something may interest someone.

use sluicebox_sdk::prelude::*;

use crate::News;

/// The inputs of [`Suggest`]. Of rows of the same time, those of `own` come first.
#[derive(Ports)]
pub enum Input<'a> {
    Own(Own<'a>),
    News(Counted<'a>),
}

/// What the user does.
#[derive(Record)]
pub struct Own<'a> {
    pub kind: News,
    pub author: &'a str,
}

/// What those whom the user follows did with a post.
#[derive(Record)]
pub struct Counted<'a> {
    pub kind: News,
    pub author: &'a str,
    pub post_id: &'a str,
    /// How many they are.
    pub actors: i64,
}

#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Interests {
    /// In no order.
    pub interests: Vec<Interest>,
}

/// How much a user is interested in the posts of someone.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Interest {
    pub author: String,
    pub weight: i64,
}

#[derive(Record, Debug, PartialEq)]
pub struct Suggestion<'a> {
    pub user_id: &'a str,
    pub kind: News,
    pub author: &'a str,
    pub post_id: &'a str,
    pub actors: i64,
    pub score: i64,
}

/// How much what happens to a post may interest a user: more, the more people do
/// something with it, and the more the user did with posts of its author. Keyed by user, in
/// order of event time.
#[operator(process)]
pub struct Suggest {
    /// How many authors are known of a user; the least interesting ones go.
    #[parameter(default = 100)]
    pub most: usize,
}

impl Process for Suggest {
    type Input<'a> = Input<'a>;
    type Key<'a> = ActorKey<'a>;
    type State = Interests;
    type Output<'a> = Suggestion<'a>;

    fn row<'a>(
        &self,
        interests: &mut Option<Interests>,
        row: Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        match row {
            Input::Own(own) => {
                if own.kind != News::Post {
                    interests.get_or_insert_default().learn(&own, self.most);
                }
            }
            Input::News(news) => {
                let interest = interests.as_ref().map_or(0, |known| known.of(news.author));
                context.emit(Suggestion {
                    user_id: context.key().actor,
                    kind: news.kind,
                    author: news.author,
                    post_id: news.post_id,
                    actors: news.actors,
                    score: weight(news.kind) * news.actors * (1 + interest),
                });
            }
        }
        Ok(())
    }
}

/// What the key of both inputs is called by the pipeline: that of the first one.
#[derive(Record)]
pub struct ActorKey<'a> {
    pub actor: &'a str,
}

fn weight(kind: News) -> i64 {
    match kind {
        News::Like => 1,
        News::Comment => 2,
        News::Post => 3,
    }
}

impl Interests {
    fn of(&self, author: &str) -> i64 {
        let mut known = self.interests.iter();
        known
            .find(|interest| interest.author == author)
            .map_or(0, |interest| interest.weight)
    }

    fn learn(&mut self, own: &Own<'_>, most: usize) {
        let more = weight(own.kind);
        let mut known = self.interests.iter_mut();
        if let Some(interest) = known.find(|interest| interest.author == own.author) {
            interest.weight += more;
            return;
        }
        self.interests.push(Interest {
            author: own.author.to_owned(),
            weight: more,
        });
        if self.interests.len() > most {
            let least = self.interests.iter().enumerate();
            let least =
                least.min_by(|(_, a), (_, b)| (a.weight, &a.author).cmp(&(b.weight, &b.author)));
            if let Some((place, _)) = least {
                self.interests.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    fn own(user: &mut OneKey<Suggest>, kind: News, author: &str) {
        let own = Own { kind, author };
        let outputs = user.row(Timestamp(0), Input::Own(own));
        assert_eq!(outputs, Ok(vec![]));
    }

    fn score(user: &mut OneKey<Suggest>, kind: News, author: &str, actors: i64) -> i64 {
        let news = Counted {
            kind,
            author,
            post_id: "p1",
            actors,
        };
        let outputs = user.row(Timestamp(0), Input::News(news));
        outputs.expect("not rejected")[0].score
    }

    #[test]
    fn a_score_grows_with_actors_and_interest() {
        let mut ann = OneKey::new(Suggest { most: 2 }, ActorKey { actor: "ann" });
        assert_eq!(score(&mut ann, News::Like, "bob", 4), 4);
        own(&mut ann, News::Comment, "bob");
        own(&mut ann, News::Like, "bob");
        own(&mut ann, News::Post, "ann");
        assert_eq!(score(&mut ann, News::Like, "bob", 4), 4 * (1 + 3));
        assert_eq!(score(&mut ann, News::Post, "ann", 1), 3);
        assert_eq!(ann.state().map(|known| known.interests.len()), Some(1));
    }

    #[test]
    fn the_least_interesting_author_goes() {
        let mut ann = OneKey::new(Suggest { most: 2 }, ActorKey { actor: "ann" });
        for (kind, author) in [
            (News::Comment, "bob"),
            (News::Like, "cem"),
            (News::Comment, "dia"),
        ] {
            own(&mut ann, kind, author);
        }
        let scores = ["bob", "cem", "dia"].map(|author| score(&mut ann, News::Like, author, 1));
        assert_eq!(scores, [3, 1, 3]);
    }
}
