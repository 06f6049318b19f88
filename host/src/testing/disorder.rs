//! Shuffles a source's rows into an order with the same results: no row becomes
//! late that was not, and each late row stays after the same rows.
//!
//! A row is late if its time is before the watermark, which is the newest time
//! before it minus the bound. Rows that are not late belong to no window that
//! has fired, so their order within a window does not matter. What happens to a
//! late row depends on the watermark, so it stays in its place.

/// An order of rows with these event times, in ms: `order[i]` is the index of
/// the row that comes `i`th. A row without a time could not be decoded, or an operator
/// makes nothing of it, and moves with its neighbours. One of which an operator makes
/// rows with several times stays in its place, too.
pub fn disorder(times: &[Vec<i64>], out_of_orderness_ms: i64, seed: u64) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order = Vec::with_capacity(times.len());
    let mut newest: Option<i64> = None;
    // The rows since the last late one, with the times that they are placed by.
    let mut movable: Vec<(i64, usize)> = Vec::new();
    for (row, times) in times.iter().enumerate() {
        let watermark = newest.map(|newest| newest.saturating_sub(out_of_orderness_ms));
        let is_late = |&time: &i64| watermark.is_some_and(|watermark| time < watermark);
        let time = times.first().copied();
        newest = newest.max(times.iter().max().copied());
        if times.len() > 1 || times.iter().any(is_late) {
            shuffle(&mut movable, out_of_orderness_ms, &mut random, &mut order);
            order.push(row);
            continue;
        }
        movable.push((time.or(newest).unwrap_or(i64::MIN), row));
    }
    shuffle(&mut movable, out_of_orderness_ms, &mut random, &mut order);
    order
}

/// Takes rows one by one, each time a random one of those that do not make the
/// oldest remaining row late.
fn shuffle(
    rows: &mut Vec<(i64, usize)>,
    out_of_orderness_ms: i64,
    random: &mut fastrand::Rng,
    order: &mut Vec<usize>,
) {
    rows.sort_unstable();
    let mut is_out = vec![false; rows.len()];
    let mut oldest = 0;
    // Indices in `rows` that may come next; rows before `behind` are in the
    // pool or taken.
    let mut pool: Vec<usize> = Vec::new();
    let mut behind = 0;
    while oldest < rows.len() {
        let newest_allowed = rows[oldest].0.saturating_add(out_of_orderness_ms);
        while behind < rows.len() && rows[behind].0 <= newest_allowed {
            pool.push(behind);
            behind += 1;
        }
        let place = pool.swap_remove(random.usize(..pool.len()));
        is_out[place] = true;
        order.push(rows[place].1);
        while is_out.get(oldest) == Some(&true) {
            oldest += 1;
        }
    }
    rows.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// For each row whether it is late, and the newest time before it.
    fn judged(times: &[Vec<i64>], order: &[usize], bound: i64) -> Vec<(bool, Option<i64>)> {
        let mut judged = vec![(false, None); times.len()];
        let mut newest: Option<i64> = None;
        for &row in order {
            for &time in &times[row] {
                let late = newest.is_some_and(|newest| time < newest - bound);
                if late {
                    judged[row] = (true, newest);
                }
                newest = newest.max(Some(time));
            }
        }
        judged
    }

    /// Mostly one time a row, at times none or several.
    fn times_of_rows(rows: usize) -> impl Strategy<Value = Vec<Vec<i64>>> {
        let times = prop_oneof![
            10 => prop::collection::vec(0_i64..200, 1),
            1 => prop::collection::vec(0_i64..200, 0..4),
        ];
        prop::collection::vec(times, 0..rows)
    }

    proptest! {
        #[test]
        fn no_row_becomes_late_or_early(
            times in times_of_rows(200),
            bound in 0_i64..60,
            seed in any::<u64>(),
        ) {
            let order = disorder(&times, bound, seed);
            let given: Vec<usize> = (0..times.len()).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &given);
            prop_assert_eq!(judged(&times, &order, bound), judged(&times, &given, bound));
        }

        #[test]
        fn late_rows_come_after_the_same_rows(
            times in times_of_rows(100),
            bound in 0_i64..60,
            seed in any::<u64>(),
        ) {
            let order = disorder(&times, bound, seed);
            let given: Vec<usize> = (0..times.len()).collect();
            for (row, (late, _)) in judged(&times, &given, bound).into_iter().enumerate() {
                if late {
                    prop_assert_eq!(order[row], row);
                    let mut before = order[..row].to_vec();
                    before.sort_unstable();
                    prop_assert_eq!(&before, &given[..row]);
                }
            }
        }
    }

    #[test]
    fn rows_move_up_to_the_bound() {
        let times: Vec<Vec<i64>> = (0..100).map(|n| vec![n * 10]).collect();
        let order = disorder(&times, 50, 1);
        let moved = order
            .iter()
            .enumerate()
            .filter(|&(place, &row)| place != row)
            .count();
        assert!(moved > 50, "only {moved} of 100 rows moved");
        let mut newest = 0;
        let mut furthest = 0;
        for &row in &order {
            furthest = furthest.max(newest - row as i64 * 10);
            newest = newest.max(row as i64 * 10);
        }
        assert_eq!(furthest, 50, "the whole bound is used, and no more");
        assert_eq!(disorder(&times, 0, 1), (0..100).collect::<Vec<_>>());
        assert_ne!(order, disorder(&times, 50, 2), "seeds differ");
    }
}
