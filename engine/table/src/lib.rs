//! (being written)
/// One shard's table.
#[derive(Debug)]
pub struct Table {}
