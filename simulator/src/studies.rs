//! One published experiment each: published | peers' rule | ours | goal.

pub mod fgd;
pub mod kueue;
pub mod lyra;
pub mod philly;
pub mod pollux;
pub mod tide;
