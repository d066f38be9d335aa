//! What must outlive the world: objects, the engine's snapshot, decisions, who held which device, and named values. On one box
//! it is all of that; where objects are elsewhere (a cluster) it is decisions and named values.
//!
//! ```text
//! a folder:     DIR/lock        held by the world that uses the ledger; its pid is inside
//!               DIR/ledger.db   SQLite in write-ahead mode
//! PostgreSQL:   the same tables, which several processes reach. One leads ([`Ledger::take`]), and others' commits are refused
//! ```
//!
//! Guarantees: a [`Commit`] is kept whole or not at all, also over `kill -9`; one process uses a folder at a time; history
//! is bounded. After a power cut the last commits may be missing, but those before them are whole (`synchronous = NORMAL`).
//! An older version's tables are brought forward when they are opened, never back.

mod database;
mod lock;
mod place;
mod sql;
mod store;

pub use place::Place;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::exit;
use database::Pool;

/// Version of the tables: as many as there are migrations. A newer one is refused.
pub const VERSION: i64 = 2;
/// Decisions that are kept where nobody says otherwise.
pub const MAX_DECISIONS: u64 = 20_000;
/// Decisions that [`Ledger::load`] gives.
pub const LOADED_DECISIONS: i64 = 2_000;
/// Ended spans that are kept.
pub const MAX_SPANS: i64 = 20_000;
/// Ended spans older than this, against the newest, go: a week, the longest that the page shows.
pub const SPAN_AGE_MS: u64 = 7 * 24 * 3_600_000;

/// How long another reader (a backup, `sqlite3` in a terminal) may hold the file.
const BUSY: Duration = Duration::from_secs(5);
/// Connections to PostgreSQL: one that writes, and some for people who ask.
const CONNECTIONS: u32 = 4;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or its lock cannot be made.
    #[error("{place}: {source}; name a directory that can be written")]
    Folder {
        /// The flag and its value.
        place: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("{place}: in use by process {}; stop that one, or name another directory", pid.map_or_else(|| "of unknown id".to_owned(), |p| p.to_string()))]
    Held {
        /// The flag and its value.
        place: String,
        /// The other process.
        pid: Option<u32>,
    },
    /// It was written by another version of the program.
    #[error(
        "{place}: has data of version {found}, this program reads version {expected}; name another directory, or use the program that made it"
    )]
    Version {
        /// The flag and its value.
        place: String,
        /// What it has.
        found: i64,
        /// What this program reads.
        expected: i64,
    },
    /// Another process has taken it.
    #[error("{place}: another process leads and writes by now")]
    NotLeader {
        /// The flag and its value.
        place: String,
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
            Self::NotLeader { .. } => "not_leader",
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
            Error::NotLeader { .. } => Self::failed("write the ledger", error),
            Error::Database { doing, source } => Self::failed(format!("{doing} the ledger"), source),
        }
    }
}

/// A manifest that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// One decision as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionRow {
    /// When.
    pub at_ms: u64,
    /// About whom: it is found by that.
    pub subject: String,
    /// What, and why.
    pub decision: String,
}

/// A decision that was kept, with its place among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Rises.
    pub number: u64,
    /// When.
    pub at_ms: u64,
    /// As JSON.
    pub decision: String,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many decisions.
    pub decisions: u64,
    /// None that are so much older than the newest.
    pub age_ms: Option<u64>,
}

impl Default for Keep {
    fn default() -> Self {
        Self { decisions: MAX_DECISIONS, age_ms: None }
    }
}

/// The right to write, until another one takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Who.
    pub holder: String,
    /// Rises each time that somebody takes the ledger. It is counted here and not read off the lease: a lease that is deleted
    /// begins at nought.
    pub epoch: i64,
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
    /// Decisions.
    pub decisions: Vec<DecisionRow>,
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
    pool: Pool,
    _lock: Option<std::sync::Arc<File>>,
    /// For messages: the flag and its value.
    place: String,
    keep: Keep,
}

impl Ledger {
    /// Opens the ledger in `dir`, which is made if absent, and locks it against other processes.
    pub async fn open(dir: &Path) -> Result<Self, Error> {
        Self::folder(dir, format!("--data {}", dir.display()), Keep::default()).await
    }

    /// Opens the ledger at a place that a flag named.
    pub async fn at(place: &Place, flag: &str, keep: Keep) -> Result<Self, Error> {
        let named = format!("{flag} {place}");
        let options = match place {
            Place::Folder(dir) => return Self::folder(dir, named, keep).await,
            Place::Postgres(options) => options,
        };
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(BUSY);
        let pool = pool.connect_with(options.as_ref().clone()).await.map_err(Error::database("open"))?;
        let ledger = Self { pool: Pool::Postgres(pool), _lock: None, place: named, keep };
        ledger.prepare().await?;
        Ok(ledger)
    }

    async fn folder(dir: &Path, place: String, keep: Keep) -> Result<Self, Error> {
        let lock = lock::take(dir, &place)?;
        let options = SqliteConnectOptions::new()
            .filename(dir.join("ledger.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY);
        // One connection: SQLite has one writer, and the world is the only reader.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(Error::database("open"))?;
        let ledger = Self { pool: Pool::Sqlite(pool), _lock: Some(std::sync::Arc::new(lock)), place, keep };
        ledger.prepare().await?;
        Ok(ledger)
    }

    /// Closes the database in order. Without it the next opening replays the write-ahead log, and nothing is lost either.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests;
