//! (in work)

pub mod lyra;
pub mod tide;
