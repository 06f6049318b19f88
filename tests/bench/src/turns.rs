//! Variants of one measurement that take turns, so that a slow minute of the machine affects
//! all of them. The best run of each counts.

use serde_json::{Value, json};

use crate::state::{brief, extend};

#[derive(Default)]
pub struct Turns(Vec<(String, Vec<f64>)>);

impl Turns {
    pub fn note(&mut self, variant: &str, seconds: f64) {
        let known = self.0.iter_mut().find(|(known, _)| known == variant);
        match known {
            Some((_, all)) => all.push(seconds),
            None => self.0.push((variant.to_owned(), vec![seconds])),
        }
    }

    /// Rows a second of each variant, and as a part of those of the variants `beside`.
    pub fn results(&self, case: &str, rows: u64, beside: &[&str]) -> anyhow::Result<Vec<Value>> {
        let cores = std::thread::available_parallelism()?.get();
        let best = |seconds: &[f64]| seconds.iter().copied().fold(f64::MAX, f64::min);
        let mut results = Vec::new();
        for (variant, seconds) in &self.0 {
            let seconds = best(seconds);
            let rate = rows as f64 / seconds;
            let mut result = json!({
                "case": case,
                "variant": variant,
                "cores": cores,
                "rows": rows,
                "seconds": seconds,
                "rows_per_second": rate,
            });
            for other in beside {
                let known = self.0.iter().find(|(known, _)| known == other);
                if let Some((_, others)) = known {
                    let name = format!("of_{other}");
                    extend(&mut result, json!({ name: best(others) / seconds }));
                }
            }
            eprintln!("{case} {variant}: {}", brief(&result));
            results.push(result);
        }
        Ok(results)
    }
}
