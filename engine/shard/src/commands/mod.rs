//! The command families (being written).
