//! What must outlive the world: objects, the engine's snapshot, decisions, who held which device, and named values.
//!
//! ```text
//! DATA/lock        held by the world that uses the ledger; its pid is inside
//! DATA/ledger.db   SQLite in write-ahead mode
//! ```
//!
//! Guarantees: a [`Commit`] is kept whole or not at all, also over `kill -9`; one process uses a ledger at a time; history
//! is bounded. After a power cut the last commits may be missing, but those before them are whole (`synchronous = NORMAL`).

mod lock;
mod sql;
mod store;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::exit;

/// Version of the tables. Another one is refused.
pub const VERSION: i64 = 1;
/// Decisions that are kept.
pub const MAX_DECISIONS: i64 = 20_000;
/// Decisions that [`Ledger::load`] gives.
pub const LOADED_DECISIONS: i64 = 2_000;
/// Ended spans that are kept.
pub const MAX_SPANS: i64 = 20_000;
/// Ended spans older than this, against the newest, go: a week, the longest that the page shows.
pub const SPAN_AGE_MS: u64 = 7 * 24 * 3_600_000;

/// How long another reader (a backup, `sqlite3` in a terminal) may hold the file.
const BUSY: Duration = Duration::from_secs(5);

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or its lock cannot be made.
    #[error("--data {path}: {source}; name a directory that can be written")]
    Folder {
        /// The data directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("--data {path}: in use by process {}; stop that one, or name another directory", pid.map_or_else(|| "of unknown id".to_owned(), |p| p.to_string()))]
    Held {
        /// The data directory.
        path: PathBuf,
        /// The other process.
        pid: Option<u32>,
    },
    /// It was written by another version of the program.
    #[error(
        "--data {path}: has data of version {found}, this program reads version {expected}; name another directory, or use the program that made it"
    )]
    Version {
        /// The data directory.
        path: PathBuf,
        /// What it has.
        found: i64,
        /// What this program reads.
        expected: i64,
    },
    /// The database does not work.
    #[error("{doing} the ledger: {source}")]
    Database {
        /// Verb.
        doing: &'static str,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
}

impl Error {
    /// Bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::Held { .. } => "held",
            Self::Version { .. } => "version",
            Self::Database { .. } => "database",
        }
    }

    fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

impl From<Error> for exit::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Folder { .. } | Error::Held { .. } | Error::Version { .. } => Self::Usage(error.to_string()),
            Error::Database { doing, source } => Self::failed(format!("{doing} the ledger"), source),
        }
    }
}

/// A manifest that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// For instance `TrainingJob`.
    pub kind: String,
    /// Unique within its kind.
    pub name: String,
    /// The folder that its relative paths are relative to.
    pub manifest_dir: String,
    /// The object as JSON or YAML.
    pub document: String,
    /// Rises with every change.
    pub generation: u64,
    /// When it was last applied.
    pub applied_ms: u64,
}

/// One holder on one device from `from_ms` to `to_ms` (absent: still). Device, kind, name and `from_ms` name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRow {
    /// Which device.
    pub device: String,
    /// `job` or `model`.
    pub kind: String,
    /// Who.
    pub name: String,
    /// Above its own quota.
    pub lent: bool,
    /// From.
    pub from_ms: u64,
    /// To.
    pub to_ms: Option<u64>,
}

/// One change, kept whole or not at all. Putting what is there replaces it, removing what is not there is fine: a commit
/// may be repeated, but for its decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Objects that were created or changed.
    pub objects_put: Vec<ObjectRow>,
    /// Objects that are gone, by kind and name.
    pub objects_removed: Vec<(String, String)>,
    /// The engine's snapshot as JSON; absent: unchanged.
    pub engine: Option<String>,
    /// Decisions as JSON, with their time.
    pub decisions: Vec<(u64, String)>,
    /// Spans that began.
    pub spans_opened: Vec<SpanRow>,
    /// Spans that ended.
    pub spans_closed: Vec<SpanRow>,
    /// Named values as JSON.
    pub values: Vec<(String, String)>,
}

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// By kind and name.
    pub objects: Vec<ObjectRow>,
    /// The engine's last snapshot.
    pub engine: Option<String>,
    /// The last [`LOADED_DECISIONS`], oldest first.
    pub decisions: Vec<(u64, String)>,
    /// Spans that had not ended before the time asked for, by their begin.
    pub spans: Vec<SpanRow>,
    /// Named values.
    pub values: BTreeMap<String, String>,
}

/// An open ledger. Clones share it; it is free for another process when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Ledger {
    // Before the lock, so that it is dropped first.
    pool: SqlitePool,
    _lock: std::sync::Arc<File>,
}

impl Ledger {
    /// Opens the ledger in `dir`, which is made if absent, and locks it against other processes.
    pub async fn open(dir: &Path) -> Result<Self, Error> {
        let lock = lock::take(dir)?;
        let options = SqliteConnectOptions::new()
            .filename(dir.join("ledger.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY);
        // One connection: SQLite has one writer, and the world is the only reader.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(Error::database("open"))?;
        let ledger = Self { pool, _lock: std::sync::Arc::new(lock) };
        ledger.prepare(dir).await?;
        Ok(ledger)
    }

    /// Closes the database in order. Without it the next opening replays the write-ahead log, and nothing is lost either.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests;
