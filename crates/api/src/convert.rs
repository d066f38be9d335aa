//! Kinds to engine types.
