//! A `libnvidia-ml.so.1` for machines without a GPU, whose answers come from a script.
//!
//! ```text
//! test ── install(dir, &Script) ──> dir/libnvidia-ml.so.1, dir/libnvidia-ml.so.1.json
//!   │                                       ▲ dlopen               ▲ read at every call
//!   └── starts what it tests with that path ┘                      │
//!   └── Script::write(..): a GPU gets busy, falls off the bus ─────┘
//! ```
//!
//! The script is the file named by `$TIDEGATE_FAKE_NVML`, else the file beside the library with `.json`
//! after its name. It is JSON of a [`Script`]. Any function can be told to fail, as a whole or for one GPU,
//! with NVML's own error names, or to hang. Without a readable script every function answers `unknown`, and the
//! line and field that are wrong are on standard error.
//!
//! * `changes` give fields other values from a moment on, `events` are what the driver reports by itself.
//! * Energy, bytes and activity are integrals of the script's rates ([`Timeline`]), exact between changes; they go on when the
//!   script is written anew, and begin at zero when `driver_load` changes.
//! * `clock_ms` sets the time by hand, for tests in virtual time.
//! * `era` makes a card old: it answers *not supported* to what its silicon cannot tell.

mod ffi;
mod install;
mod script;
mod state;
mod timeline;

pub use install::{built_library, install};
pub use script::{Change, Code, Era, Event, Gpu, Instance, Link, Process, ProcessKind, Script};
pub use timeline::{Integrals, Timeline};
