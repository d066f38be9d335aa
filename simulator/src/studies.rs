//! (in work)

pub mod pollux;
