//! (in work)

pub mod kueue;
