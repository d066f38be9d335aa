//! One published experiment each: published | peers' rule | ours | goal.

pub mod philly;
