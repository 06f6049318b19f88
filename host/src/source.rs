//! Placeholder until the sources land.
use crate::batch::Origin;
pub struct Provenance {
    pub source: String,
    pub partition: String,
    pub offset: u64,
    pub payload: Option<String>,
    pub payload_base64: Option<String>,
}
pub fn provenance(origin: &Origin, row: usize) -> Provenance {
    let row = origin.row(row);
    Provenance {
        source: origin.block.source.to_string(),
        partition: origin.block.partition.to_string(),
        offset: origin.block.offset(row),
        payload: None,
        payload_base64: None,
    }
}
