//! Published experiments done again, one module each.

pub mod fgd;
