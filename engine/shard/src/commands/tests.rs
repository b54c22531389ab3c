//! The commands against their expected replies, written as data.
