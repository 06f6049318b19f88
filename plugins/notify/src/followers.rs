//! Hands what someone does to all who follow them.

use sluicebox_sdk::prelude::*;

use crate::{Kind, News};

/// The inputs of [`Followers`]. Of rows of the same time, those of `follows` come first.
#[derive(Ports)]
pub enum Input<'a> {
    Follows(Follow<'a>),
    Actions(Action<'a>),
}

/// Someone begins, or ends, to follow the user of the key.
#[derive(Record)]
pub struct Follow<'a> {
    /// Who follows.
    pub actor: &'a str,
    pub kind: Kind,
}

/// What the user of the key does.
#[derive(Record)]
pub struct Action<'a> {
    pub kind: News,
    /// Whose post it is about.
    pub author: &'a str,
    pub post_id: &'a str,
}

/// What the key of both inputs is called by the pipeline: that of the first one.
#[derive(Record)]
pub struct AuthorKey<'a> {
    pub author: &'a str,
}

#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Following {
    /// Those who follow, in order of their names.
    pub followers: Vec<String>,
}

/// What a user hears of.
#[derive(Record, Debug, PartialEq)]
pub struct Heard<'a> {
    pub user_id: String,
    pub actor: &'a str,
    pub kind: News,
    pub author: &'a str,
    pub post_id: &'a str,
}

/// A row for each who follows the actor at the time of the action. Keyed by whom they
/// follow, in order of event time.
#[operator(process)]
pub struct Followers {
    /// How many can follow someone, since each takes memory.
    #[parameter(default = 100_000)]
    pub most: usize,
}

impl Process for Followers {
    type Input<'a> = Input<'a>;
    type Key<'a> = AuthorKey<'a>;
    type State = Following;
    type Output<'a> = Heard<'a>;

    fn row<'a>(
        &self,
        following: &mut Option<Following>,
        row: Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        match row {
            Input::Follows(follow) => self.follow(following, &follow),
            Input::Actions(action) => {
                let actor = context.key().author;
                for user_id in following.iter().flat_map(|following| &following.followers) {
                    context.emit(Heard {
                        user_id: user_id.clone(),
                        actor,
                        kind: action.kind,
                        author: action.author,
                        post_id: action.post_id,
                    });
                }
                Ok(())
            }
        }
    }
}

impl Followers {
    fn follow(&self, following: &mut Option<Following>, follow: &Follow<'_>) -> Result<(), Reject> {
        let followers = &mut following.get_or_insert_default().followers;
        let place = followers.binary_search_by(|known| known.as_str().cmp(follow.actor));
        match (follow.kind, place) {
            (Kind::Follow, Err(_)) if followers.len() >= self.most => {
                reject!("{} follow already, and no more can", self.most);
            }
            (Kind::Follow, Err(place)) => followers.insert(place, follow.actor.to_owned()),
            (Kind::Unfollow, Ok(place)) => drop(followers.remove(place)),
            _ => {}
        }
        if followers.is_empty() {
            *following = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    fn ann() -> OneKey<Followers> {
        OneKey::new(Followers { most: 2 }, AuthorKey { author: "ann" })
    }

    fn follow(key: &mut OneKey<Followers>, actor: &str, kind: Kind) -> bool {
        let follow = Follow { actor, kind };
        key.row(Timestamp(0), Input::Follows(follow)).is_ok()
    }

    fn heard_by(key: &mut OneKey<Followers>) -> Vec<String> {
        let action = Action {
            kind: News::Post,
            author: "ann",
            post_id: "p1",
        };
        let heard = key.row(Timestamp(0), Input::Actions(action));
        let heard = heard.expect("not rejected").into_iter();
        heard.map(|heard| heard.user_id).collect()
    }

    #[test]
    fn those_who_follow_hear_of_it() {
        let mut ann = ann();
        assert_eq!(heard_by(&mut ann), [""; 0]);
        assert!(follow(&mut ann, "cem", Kind::Follow) && follow(&mut ann, "bob", Kind::Follow));
        assert!(
            follow(&mut ann, "bob", Kind::Follow),
            "once more changes nothing"
        );
        assert_eq!(heard_by(&mut ann), ["bob", "cem"]);
        assert!(!follow(&mut ann, "dia", Kind::Follow), "there is no room");
        assert!(follow(&mut ann, "cem", Kind::Unfollow) && follow(&mut ann, "cem", Kind::Unfollow));
        assert_eq!(heard_by(&mut ann), ["bob"]);
        assert!(follow(&mut ann, "bob", Kind::Unfollow));
        assert_eq!(ann.state(), None);
    }
}
