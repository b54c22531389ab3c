//! Tests of frames and batches.
