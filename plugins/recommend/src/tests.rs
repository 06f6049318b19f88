use sluicebox_sdk::Rehearsal;
use sluicebox_sdk::prelude::*;

use crate::{Algorithm, Damping, Interaction, Items, Reason, Recommendations, Request};

const HOUR_MS: i64 = 3_600_000;

fn items(algorithm: Algorithm) -> Items {
    Items {
        algorithm,
        count: 3,
        actions: Vec::new(),
        repeats: false,
        profile_items: 20,
        seen_items: 1_000,
        neighbours: 50,
        popular_items: 50,
        sessions: 50,
        session_items: 20,
        session_gap_ms: HOUR_MS / 2,
        within_ms: None,
        learning_decay: 0.9,
        asking_decay: 0.85,
        damping: Damping::Full,
        half_life_ms: None,
    }
}

struct Shop {
    shop: Rehearsal<Items>,
    time_ms: i64,
}

impl Shop {
    fn new(items: Items) -> Self {
        Shop {
            shop: Rehearsal::new(items),
            time_ms: 0,
        }
    }

    fn view(&mut self, user: &str, item: &str) -> &mut Self {
        self.act(user, item, "view", None)
    }

    fn act(&mut self, user: &str, item: &str, action: &str, category: Option<&str>) -> &mut Self {
        self.time_ms += 1_000;
        let interaction = Interaction { action, category };
        let time = Timestamp(self.time_ms);
        self.shop
            .interact(time, user, item, interaction)
            .expect("it is accepted");
        self
    }

    fn request(&self, user: &str, request: Request<'_>) -> Recommendations {
        self.shop.request(Timestamp(self.time_ms), user, request)
    }

    fn names(&self, user: &str) -> Vec<String> {
        let answer = self.request(user, Request::default());
        answer.recommended.into_iter().map(|it| it.item).collect()
    }
}

#[test]
fn items_that_go_together_are_recommended_with_their_reason() {
    let mut shop = Shop::new(items(Algorithm::ItemKnn));
    shop.view("ann", "tea")
        .view("ann", "pot")
        .view("bob", "tea")
        .view("bob", "pot");
    shop.view("cem", "seeds")
        .view("cem", "spade")
        .view("dia", "tea");
    let answer = shop.request("dia", Request::default());
    let first = &answer.recommended[0];
    assert_eq!(
        (first.item.as_str(), first.reason),
        ("pot", Reason::Related)
    );
    assert_eq!(first.since, ["tea"]);
    // Two of three who viewed tea have viewed the pot: 2 ÷ √3 ÷ √2.
    assert!(
        (first.score - 2.0 / 6_f64.sqrt()).abs() < 1e-12,
        "{}",
        first.score
    );
    let rest = &answer.recommended[1..];
    assert!(
        rest.iter()
            .all(|it| it.reason == Reason::Popular && it.since.is_empty())
    );
}

#[test]
fn an_unknown_user_gets_what_is_popular() {
    let mut shop = Shop::new(items(Algorithm::ItemKnn));
    assert!(shop.names("eve").is_empty(), "there is nothing yet");
    shop.act("ann", "tea", "view", Some("kitchen"))
        .act("bob", "tea", "view", Some("kitchen"));
    shop.act("ann", "pot", "view", Some("kitchen"))
        .view("ann", "radio")
        .view("bob", "radio");
    shop.view("cem", "radio");
    assert_eq!(shop.names("eve"), ["radio", "tea", "pot"]);
    let request = Request {
        category: Some("kitchen"),
        ..Request::default()
    };
    let answer = shop.request("eve", request).recommended;
    let names: Vec<(&str, Reason)> = answer.iter().map(|it| (&*it.item, it.reason)).collect();
    let (popular, in_category) = (Reason::Popular, Reason::PopularInCategory);
    let expected = [
        ("tea", in_category),
        ("pot", in_category),
        ("radio", popular),
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_a_user_has_seen_is_not_recommended_again() {
    let mut shop = Shop::new(items(Algorithm::Popular));
    shop.view("ann", "tea")
        .view("ann", "pot")
        .view("bob", "tea");
    assert_eq!(shop.names("bob"), ["pot"]);
    let mut shop = Shop::new(Items {
        repeats: true,
        ..items(Algorithm::Popular)
    });
    shop.view("ann", "tea")
        .view("ann", "pot")
        .view("bob", "tea");
    assert_eq!(shop.names("bob"), ["tea", "pot"]);
}

#[test]
fn a_request_may_name_an_item() {
    let mut shop = Shop::new(items(Algorithm::ItemKnn));
    shop.view("ann", "tea")
        .view("ann", "pot")
        .view("cem", "seeds")
        .view("cem", "spade");
    let request = Request {
        item: Some("seeds"),
        request: Some("page 7"),
        ..Request::default()
    };
    let answer = shop.request("ann", request);
    assert_eq!(answer.recommended[0].item, "spade");
    assert_eq!(answer.request.as_deref(), Some("page 7"));
    assert_eq!(answer.item.as_deref(), Some("seeds"));
}

#[test]
fn only_named_actions_are_learnt_from() {
    let mut shop = Shop::new(Items {
        actions: vec!["purchase".into()],
        ..items(Algorithm::ItemKnn)
    });
    shop.view("ann", "tea").act("ann", "pot", "purchase", None);
    assert_eq!(shop.names("eve"), ["pot"]);
}

#[test]
fn sessions_are_what_goes_together() {
    let mut shop = Shop::new(items(Algorithm::SessionKnn));
    shop.view("ann", "tea").view("ann", "pot");
    shop.time_ms += HOUR_MS;
    shop.view("ann", "seeds")
        .view("ann", "spade")
        .view("bob", "seeds");
    let answer = shop.request("bob", Request::default()).recommended;
    assert_eq!(
        (answer[0].item.as_str(), answer[0].reason),
        ("spade", Reason::Related)
    );
    assert!(
        answer[1..].iter().all(|it| it.reason == Reason::Popular),
        "of another session"
    );
    shop.time_ms += HOUR_MS;
    let later = shop.request("bob", Request::default()).recommended;
    assert!(
        later.iter().all(|it| it.reason == Reason::Popular),
        "the session is over"
    );
}

#[test]
fn what_was_learnt_decays() {
    let mut shop = Shop::new(Items {
        half_life_ms: Some(HOUR_MS),
        ..items(Algorithm::Popular)
    });
    shop.view("ann", "tea")
        .view("bob", "tea")
        .view("cem", "tea")
        .view("ann", "pot");
    assert_eq!(shop.names("eve"), ["tea", "pot"]);
    shop.time_ms += 2 * HOUR_MS;
    shop.view("bob", "pot");
    let answer = shop.request("eve", Request::default()).recommended;
    assert_eq!(answer[0].item, "pot");
    assert!((answer[0].score - 1.25).abs() < 1e-3, "{}", answer[0].score);
    assert!((answer[1].score - 0.75).abs() < 1e-3, "{}", answer[1].score);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut shop = Shop::new(Items {
        profile_items: 5,
        seen_items: 30,
        neighbours: 7,
        popular_items: 9,
        ..items(Algorithm::ItemKnn)
    });
    for n in 0..500 {
        shop.view("ann", &format!("item-{}", n * 7 % 100))
            .view(&format!("user-{n}"), "tea");
        shop.view(&format!("user-{n}"), &format!("item-{}", n % 100));
    }
    let ann = shop.shop.profile("ann").expect("she is known");
    assert_eq!((ann.recent.len(), ann.seen.len()), (5, 30));
    let tea = shop.shop.model("tea").expect("it is known");
    assert_eq!(tea.neighbours.len(), 7);
    let popular = shop.shop.model("popular:").expect("it is known");
    assert_eq!(popular.neighbours.len(), 9);
    assert!(
        popular
            .neighbours
            .iter()
            .any(|it| it.item == "tea" && it.weight == 500.0)
    );
}

#[test]
fn names_of_lists_are_no_items() {
    let mut shop = Shop::new(items(Algorithm::ItemKnn));
    let interaction = Interaction {
        action: "view",
        category: None,
    };
    let refused = shop
        .shop
        .interact(Timestamp(1), "ann", "popular:tea", interaction);
    assert!(refused.is_err());
    assert!(shop.names("ann").is_empty());
}
