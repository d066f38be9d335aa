//! One published experiment each: published | peers' rule | ours | goal.

pub mod kueue;
pub mod pollux;
