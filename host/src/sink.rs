//! Placeholder until the sinks land.
pub mod dead_letter {
    pub fn render_row(batch: &crate::batch::Batch, row: usize) -> String {
        format!("{:?} {row}", batch.columns)
    }
}
