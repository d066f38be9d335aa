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
//! with NVML's own error names. Without a readable script every function answers `unknown`.

mod ffi;
mod install;
mod script;
mod state;
mod timeline;

pub use install::{built_library, install};
pub use script::{Change, Code, Era, Event, Gpu, Instance, Link, Process, ProcessKind, Script};
pub use timeline::{Integrals, Timeline};
