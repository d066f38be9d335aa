//! (in work)

pub mod lyra;
