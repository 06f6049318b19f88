//! Tells of sources that say nothing any more.

use sluicebox_sdk::prelude::*;

use crate::{Alarm, SourceKey};

const SILENT: &str = "silent";

/// Any row.
#[derive(Record)]
pub struct Anything {}

#[derive(Record, Clone, Debug, PartialEq)]
pub struct Heard {
    pub last: Timestamp,
    pub is_silent: bool,
}

#[derive(Record, Debug, PartialEq)]
pub struct Silent<'a> {
    pub source: &'a str,
    pub alarm: Alarm,
    /// The last event before the silence.
    pub since: Timestamp,
    pub at: Timestamp,
}

/// Tells when a source has said nothing for some time, and when it speaks again. Keyed by
/// source.
///
/// Time is that of the events, so it needs other sources that speak.
#[operator(process)]
pub struct Silence {
    #[parameter(default = 60_000)]
    pub after_ms: i64,
}

impl Process for Silence {
    type Input<'a> = Anything;
    type Key<'a> = SourceKey<'a>;
    type State = Heard;
    type Output<'a> = Silent<'a>;

    fn row<'a>(
        &self,
        heard: &mut Option<Heard>,
        _row: Anything,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let at = context.time();
        match heard {
            // It is out of order, and says nothing new.
            Some(heard) if at <= heard.last => return Ok(()),
            Some(heard) if heard.is_silent => {
                let (source, since) = (context.key().source, heard.last);
                context.emit(Silent {
                    source,
                    alarm: Alarm::Over,
                    since,
                    at,
                });
            }
            _ => {}
        }
        *heard = Some(Heard {
            last: at,
            is_silent: false,
        });
        let due = Timestamp(at.0.saturating_add(self.after_ms));
        context.set(SILENT, due);
        Ok(())
    }

    fn timer<'a>(
        &self,
        heard: &mut Option<Heard>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if let Some(heard) = heard {
            heard.is_silent = true;
            context.emit(Silent {
                source: context.key().source,
                alarm: Alarm::Raised,
                since: heard.last,
                at: timer.time,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    fn silent(alarm: Alarm, since: i64, at: i64) -> Silent<'static> {
        Silent {
            source: "web",
            alarm,
            since: Timestamp(since),
            at: Timestamp(at),
        }
    }

    #[test]
    fn silence_is_told_once_and_when_it_is_over() {
        let mut web = OneKey::new(Silence { after_ms: 100 }, SourceKey { source: "web" });
        assert_eq!(web.row(Timestamp(0), Anything {}), Ok(vec![]));
        assert_eq!(web.row(Timestamp(50), Anything {}), Ok(vec![]));
        assert_eq!(web.row(Timestamp(20), Anything {}), Ok(vec![]));
        assert_eq!(web.advance(Timestamp(149)), Ok(vec![]));
        assert_eq!(
            web.advance(Timestamp(150)),
            Ok(vec![silent(Alarm::Raised, 50, 150)])
        );
        assert_eq!(
            web.row(Timestamp(40), Anything {}),
            Ok(vec![]),
            "late rows do not end it"
        );
        assert_eq!(web.advance(Timestamp(900)), Ok(vec![]));
        assert_eq!(
            web.row(Timestamp(950), Anything {}),
            Ok(vec![silent(Alarm::Over, 50, 950)])
        );
        assert_eq!(
            web.advance(Timestamp(i64::MAX)),
            Ok(vec![silent(Alarm::Raised, 950, 1050)])
        );
    }
}
