//! Compares the variants of a campaign.

use sluicebox_sdk::prelude::*;

use crate::Variant;

/// 95% of what is normally distributed is within this many standard deviations.
const CONFIDENCE: f64 = 1.96;

/// What a variant has brought.
#[derive(Record)]
pub struct Brought {
    pub variant: Variant,
    pub participants: i64,
    pub buyers: i64,
}

/// Of both variants.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Both {
    pub a_participants: i64,
    pub a_buyers: i64,
    pub b_participants: i64,
    pub b_buyers: i64,
}

#[derive(Record, Debug, PartialEq)]
pub struct Compared {
    pub a_participants: i64,
    pub a_conversion: f64,
    pub b_participants: i64,
    pub b_conversion: f64,
    /// By how much more of those who see B buy something.
    pub difference: f64,
    /// Between these it is, with a confidence of 95%.
    pub low: f64,
    pub high: f64,
    /// How many standard errors it is from 0; missing if nobody buys, or everybody.
    pub z: Option<f64>,
}

/// By how much the conversion of variant B is better than that of A: a test of two
/// proportions. Keyed by campaign and window, behind sums by campaign and variant. A
/// campaign of which only one variant was seen has no result.
#[operator]
pub struct Compare;

impl Aggregate for Compare {
    type Input<'a> = Brought;
    type State = Both;
    type Output<'a> = Option<Compared>;

    fn accumulate(&self, both: &mut Both, brought: Brought) -> Result<(), Reject> {
        let Brought {
            variant,
            participants,
            buyers,
        } = brought;
        match variant {
            Variant::A => (both.a_participants, both.a_buyers) = (participants, buyers),
            Variant::B => (both.b_participants, both.b_buyers) = (participants, buyers),
        }
        Ok(())
    }

    fn merge(&self, both: &mut Both, later: Both) {
        both.a_participants += later.a_participants;
        both.a_buyers += later.a_buyers;
        both.b_participants += later.b_participants;
        both.b_buyers += later.b_buyers;
    }

    fn finish(&self, both: &Both, _window: Window) -> Option<Compared> {
        if both.a_participants == 0 || both.b_participants == 0 {
            return None;
        }
        let (a, b) = (both.a_participants as f64, both.b_participants as f64);
        let (a_conversion, b_conversion) = (both.a_buyers as f64 / a, both.b_buyers as f64 / b);
        let difference = b_conversion - a_conversion;
        let variance = |share: f64| share * (1.0 - share);
        let error = (variance(a_conversion) / a + variance(b_conversion) / b).sqrt();
        let of_all = (both.a_buyers + both.b_buyers) as f64 / (a + b);
        let error_if_equal = (variance(of_all) * (1.0 / a + 1.0 / b)).sqrt();
        Some(Compared {
            a_participants: both.a_participants,
            a_conversion,
            b_participants: both.b_participants,
            b_conversion,
            difference,
            low: difference - CONFIDENCE * error,
            high: difference + CONFIDENCE * error,
            z: (error_if_equal > 0.0).then(|| difference / error_if_equal),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<Compared> {
        let mut both = Both::default();
        for (variant, of) in [(Variant::A, a), (Variant::B, b)] {
            if let Some((participants, buyers)) = of {
                let brought = Brought {
                    variant,
                    participants,
                    buyers,
                };
                Compare
                    .accumulate(&mut both, brought)
                    .expect("not rejected");
            }
        }
        Compare.finish(&both, Window::ALL)
    }

    /// An example of textbooks: 200 of 2000 beside 250 of 2000.
    #[test]
    fn a_difference_has_its_error() {
        let compared = compare(Some((2_000, 200)), Some((2_000, 250))).expect("both are seen");
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-4;
        assert!(near(compared.difference, 0.025), "{compared:?}");
        assert!(
            near(compared.low, 0.00544) && near(compared.high, 0.04456),
            "{compared:?}"
        );
        assert!(near(compared.z.unwrap_or(0.0), 2.5019), "{compared:?}");
    }

    #[test]
    fn there_is_nothing_to_compare_without_both_or_without_buyers() {
        assert_eq!(compare(Some((10, 1)), None), None);
        assert_eq!(compare(None, Some((10, 1))), None);
        let nobody = compare(Some((10, 0)), Some((10, 0))).expect("both are seen");
        assert_eq!(nobody.z, None);
    }
}
