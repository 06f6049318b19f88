//! What people and programs see of the state of an aggregate.

use super::cut::Cut;
use super::time::Span;
use super::{count, running, session, sliding, tumbling};
use crate::plan::{AggregatePlan, Window};
use crate::state::look::SeenRow;
use crate::state::row::RowError;
use crate::state::shown::{Shown, show_rows};

/// Shows a row of the table of windows: one entry for each window, session or pane.
pub fn show(plan: &AggregatePlan, seen: &SeenRow) -> Result<Vec<Shown>, RowError> {
    let mut states = Vec::new();
    let mut shown = match plan.window {
        window @ Window::Tumbling { .. } => {
            tumbling::read(&seen.row, &mut states)?;
            vec![of_span(cut(window)?.pane_span(seen.pane))]
        }
        window @ (Window::Sliding { .. } | Window::Cumulate { .. }) => {
            let (_, leaves) = sliding::read_leaves(&seen.row, &mut states)?;
            let cut = cut(window)?;
            let panes = leaves.iter().map(|leaf| of_span(cut.pane_span(leaf.pane)));
            panes.collect()
        }
        Window::Session { gap_ms, .. } => {
            let spans = session::spans(&seen.row, gap_ms, &mut states)?;
            spans.into_iter().map(of_span).collect()
        }
        Window::Count { .. } | Window::Global => {
            let (_, window) = count::read(&seen.row, &mut states)?;
            vec![Shown {
                start_ms: Some(window.first_ms),
                newest_ms: Some(window.last_ms),
                rows: Some(window.rows),
                ..Shown::default()
            }]
        }
        Window::Running => {
            let entry = running::read(&seen.row, &mut states)?;
            // A state that was told comes before that of the key now.
            states.drain(..entry.states() - 1);
            vec![Shown {
                newest_ms: Some(entry.newest_ms),
                ..Shown::default()
            }]
        }
    };
    let states = show_rows(&plan.operator.factory.info().state, &states)?;
    for (shown, state) in shown.iter_mut().zip(states) {
        shown.state = Some(state);
    }
    Ok(shown)
}

fn cut(window: Window) -> Result<Cut, RowError> {
    Cut::of(window).map_err(RowError::new)
}

fn of_span(span: Span) -> Shown {
    Shown {
        start_ms: Some(span.start),
        end_ms: Some(span.end),
        ..Shown::default()
    }
}
