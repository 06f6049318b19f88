use sluicebox_sdk::prelude::*;

/// Something that a user did.
#[derive(Record)]
pub struct Event<'a> {
    pub user_id: &'a str,
    pub item_id: &'a str,
    pub action: &'a str,
    pub category: Option<&'a str>,
}

/// Which events ask.
#[derive(Parameters)]
pub struct Asking {
    /// The actions on which something is recommended.
    #[parameter(default = ["view"])]
    actions: Vec<String>,
}

/// A request of a user.
#[derive(Record, Debug, PartialEq)]
pub struct UserRequest<'a> {
    pub user_id: &'a str,
    pub request: Option<&'a str>,
    pub item: Option<&'a str>,
    pub category: Option<&'a str>,
}

/// Asks for recommendations when a user does something: what goes with what the user has
/// done.
#[operator]
pub fn user_requests<'a>(event: Event<'a>, asking: &Asking) -> Option<UserRequest<'a>> {
    request(event, asking, |_| None)
}

/// Asks for recommendations when a user does something: what goes with the item.
#[operator]
pub fn item_requests<'a>(event: Event<'a>, asking: &Asking) -> Option<UserRequest<'a>> {
    request(event, asking, Some)
}

fn request<'a>(
    event: Event<'a>,
    asking: &Asking,
    item: impl Fn(&'a str) -> Option<&'a str>,
) -> Option<UserRequest<'a>> {
    let mut actions = asking.actions.iter();
    actions
        .any(|action| action == event.action)
        .then(|| UserRequest {
            user_id: event.user_id,
            request: None,
            item: item(event.item_id),
            category: event.category,
        })
}
