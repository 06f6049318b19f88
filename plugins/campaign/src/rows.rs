//! Functions of single rows.

use sluicebox_sdk::prelude::*;

/// An item that is sold at a price for a campaign from now on, or not any more.
#[derive(Record)]
pub struct Promotion<'a> {
    pub item_id: &'a str,
    pub campaign: &'a str,
    /// In cents.
    pub price: i64,
}

/// Rejects promotions that cannot be.
#[operator]
pub fn offered(promotion: Promotion<'_>) -> Result<bool, Reject> {
    if promotion.item_id.is_empty() || promotion.campaign.is_empty() {
        reject!("`item_id` or `campaign` is empty, expected both");
    }
    if promotion.price < 1 {
        reject!("`price` is {}, expected at least 1", promotion.price);
    }
    Ok(true)
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    View,
    Add,
    Remove,
    Checkout,
}

#[derive(Record)]
pub struct Acted {
    pub action: Action,
}

/// Keeps what was viewed.
#[operator]
pub fn clicked(acted: Acted) -> bool {
    acted.action == Action::View
}

/// Keeps what was bought.
#[operator]
pub fn bought(acted: Acted) -> bool {
    acted.action == Action::Checkout
}

/// What a user did with an item of a campaign.
#[derive(Record)]
pub struct Promoted<'a> {
    pub campaign: &'a str,
    pub user_id: &'a str,
    pub action: Action,
    pub quantity: i64,
    /// In cents.
    pub price: i64,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    A,
    B,
}

/// What a user did, and what it brought.
#[derive(Record, Debug, PartialEq)]
pub struct Taken<'a> {
    pub campaign: &'a str,
    pub variant: Variant,
    pub user_id: &'a str,
    /// The user, if something was bought.
    pub buyer: Option<&'a str>,
    pub units: i64,
    /// In cents.
    pub revenue: i64,
}

#[derive(Parameters)]
pub struct Variants {
    /// How many users of a hundred see variant B.
    #[parameter(default = 50)]
    pub share: u64,
}

/// What each user does in a campaign, what it brings, and which variant they see.
///
/// Which one that is depends on user and campaign alone: a user sees the same one each
/// time, and may see another one in another campaign. Who takes things out of the cart
/// takes no part.
#[operator]
pub fn taken<'a>(promoted: Promoted<'a>, variants: &Variants) -> Result<Option<Taken<'a>>, Reject> {
    let Promoted {
        campaign,
        user_id,
        action,
        quantity,
        price,
    } = promoted;
    let (buyer, units, revenue) = match action {
        Action::Remove => return Ok(None),
        Action::View | Action::Add => (None, 0, 0),
        Action::Checkout => match quantity.checked_mul(price) {
            Some(revenue) => (Some(user_id), quantity, revenue),
            None => reject!("{quantity} for {price} each is too much to count"),
        },
    };
    let variant = match bucket(user_id, campaign) < variants.share {
        true => Variant::B,
        false => Variant::A,
    };
    Ok(Some(Taken {
        campaign,
        variant,
        user_id,
        buyer,
        units,
        revenue,
    }))
}

/// A number below 100 by FNV-1a.
fn bucket(user_id: &str, campaign: &str) -> u64 {
    let bytes = user_id.bytes().chain([0]).chain(campaign.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % 100
}

/// Sums of a campaign in a window.
#[derive(Record)]
pub struct Sums<'a> {
    pub campaign: &'a str,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub participants: i64,
    pub buyers: i64,
    pub units: i64,
    pub revenue: i64,
}

/// The same, with the share of participants who bought.
#[derive(Record, Debug, PartialEq)]
pub struct Campaign<'a> {
    pub campaign: &'a str,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub participants: i64,
    pub buyers: i64,
    pub units: i64,
    pub revenue: i64,
    pub conversion: f64,
}

/// The share of a campaign's participants who bought.
#[operator]
pub fn conversion(sums: Sums<'_>) -> Campaign<'_> {
    Campaign {
        campaign: sums.campaign,
        window_start: sums.window_start,
        window_end: sums.window_end,
        participants: sums.participants,
        buyers: sums.buyers,
        units: sums.units,
        revenue: sums.revenue,
        conversion: sums.buyers as f64 / sums.participants as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(
        user_id: &str,
        action: Action,
        quantity: i64,
        share: u64,
    ) -> Result<Option<Taken<'_>>, Reject> {
        let promoted = Promoted {
            campaign: "spring",
            user_id,
            action,
            quantity,
            price: 250,
        };
        taken(promoted, &Variants { share })
    }

    #[test]
    fn only_a_purchase_brings_something() {
        let of = |action| take("ann", action, 2, 0).expect("not rejected");
        let bought = of(Action::Checkout).expect("takes part");
        assert_eq!(
            (bought.buyer, bought.units, bought.revenue),
            (Some("ann"), 2, 500)
        );
        let viewed = of(Action::View).expect("takes part");
        assert_eq!((viewed.buyer, viewed.units, viewed.revenue), (None, 0, 0));
        assert_eq!(of(Action::Remove), None);
        assert!(take("ann", Action::Checkout, i64::MAX, 0).is_err());
    }

    #[test]
    fn as_many_see_variant_b_as_should() {
        let sees_b = |share| {
            let users = (0..10_000).map(|user| format!("user-{user:06}"));
            let variants = users.map(|user| {
                let taken = take(&user, Action::View, 1, share);
                taken.expect("not rejected").map(|taken| taken.variant)
            });
            variants
                .filter(|variant| *variant == Some(Variant::B))
                .count()
        };
        assert_eq!((sees_b(0), sees_b(100)), (0, 10_000));
        let third = sees_b(30);
        assert!((2_800..3_200).contains(&third), "{third}");
    }

    #[test]
    fn promotions_that_cannot_be_are_rejected() {
        let offer = |item_id, price| {
            offered(Promotion {
                item_id,
                campaign: "spring",
                price,
            })
        };
        assert_eq!(offer("tea", 1), Ok(true));
        assert!(offer("tea", 0).is_err());
        assert!(offer("", 1).is_err());
    }
}
