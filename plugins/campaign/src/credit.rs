//! Gives a purchase to one of the clicks before it.

use sluicebox_sdk::prelude::*;

/// A purchase with one of the clicks before it.
#[derive(Record)]
pub struct Pair<'a> {
    pub campaign: &'a str,
    /// In cents, at the time of the click.
    pub price: i64,
    pub clicked: Timestamp,
    pub quantity: i64,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    First,
    Last,
}

/// The click that counts so far.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Click {
    pub campaign: String,
    pub price: i64,
    pub clicked: Timestamp,
    pub quantity: i64,
    /// How many there are.
    pub clicks: i64,
}

#[derive(Record, Debug, PartialEq)]
pub struct Credited<'a> {
    pub campaign: &'a str,
    pub clicked: Timestamp,
    pub clicks: i64,
    pub units: i64,
    /// In cents.
    pub revenue: i64,
}

/// The campaign that a purchase is due to: that of the first or the last click before it.
/// Keyed by purchase.
#[operator]
pub struct Credit {
    pub touch: Touch,
}

impl Aggregate for Credit {
    type Input<'a> = Pair<'a>;
    type State = Click;
    type Output<'a> = Credited<'a>;

    fn accumulate(&self, click: &mut Click, pair: Pair<'_>) -> Result<(), Reject> {
        if pair.quantity.checked_mul(pair.price).is_none() {
            reject!(
                "{} for {} each is too much to count",
                pair.quantity,
                pair.price
            );
        }
        let new = Click {
            campaign: pair.campaign.to_owned(),
            price: pair.price,
            clicked: pair.clicked,
            quantity: pair.quantity,
            clicks: 1,
        };
        self.merge(click, new);
        Ok(())
    }

    fn merge(&self, click: &mut Click, later: Click) {
        let clicks = click.clicks + later.clicks;
        // Of clicks at the same time, the order must not matter.
        let place = |click: &Click| (click.clicked, click.campaign.clone(), click.price);
        let is_better = match self.touch {
            Touch::First => place(&later) < place(click),
            Touch::Last => place(&later) > place(click),
        };
        if click.clicks == 0 || is_better {
            *click = later;
        }
        click.clicks = clicks;
    }

    fn finish<'a>(&'a self, click: &'a Click, _window: Window) -> Credited<'a> {
        Credited {
            campaign: &click.campaign,
            clicked: click.clicked,
            clicks: click.clicks,
            units: click.quantity,
            revenue: click.quantity * click.price,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_or_the_last_click_counts_in_any_order() {
        let clicks = [(5, "spring"), (3, "sale"), (5, "sale"), (4, "spring")];
        for (touch, expected) in [(Touch::First, (3, "sale")), (Touch::Last, (5, "spring"))] {
            let credit = Credit { touch };
            for turn in 0..clicks.len() {
                let mut click = Click::default();
                for at in 0..clicks.len() {
                    let (time, campaign) = clicks[(turn + at) % clicks.len()];
                    let pair = Pair {
                        campaign,
                        price: 10,
                        clicked: Timestamp(time),
                        quantity: 2,
                    };
                    credit.accumulate(&mut click, pair).expect("not rejected");
                }
                let credited = credit.finish(&click, Window::ALL);
                assert_eq!((credited.clicked.0, credited.campaign), expected);
                assert_eq!(
                    (credited.clicks, credited.units, credited.revenue),
                    (4, 2, 20)
                );
            }
        }
    }
}
