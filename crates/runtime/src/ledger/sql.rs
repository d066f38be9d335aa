//! All statements. `$n` and `ON CONFLICT` are what SQLite and PostgreSQL have in common.

/// Is there anything yet?
pub const HAS_TABLES: &str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'";

pub const READ_VERSION: &str = "SELECT version FROM schema_version";

pub const WRITE_VERSION: &str = "INSERT INTO schema_version (version) VALUES ($1)";

pub const CREATE: &str = "
CREATE TABLE schema_version (version BIGINT NOT NULL);
CREATE TABLE objects (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    manifest_dir TEXT NOT NULL,
    document TEXT NOT NULL,
    generation BIGINT NOT NULL,
    applied_ms BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE engine (id INTEGER PRIMARY KEY CHECK (id = 1), snapshot TEXT NOT NULL);
CREATE TABLE decisions (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms BIGINT NOT NULL, decision TEXT NOT NULL);
CREATE TABLE spans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    lent BOOLEAN NOT NULL,
    from_ms BIGINT NOT NULL,
    to_ms BIGINT,
    UNIQUE (device, kind, name, from_ms)
);
CREATE INDEX spans_to_ms ON spans (to_ms);
CREATE TABLE named_values (name TEXT PRIMARY KEY, value TEXT NOT NULL);
";

pub const PUT_OBJECT: &str = "
INSERT INTO objects (kind, name, manifest_dir, document, generation, applied_ms) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (kind, name) DO UPDATE SET
    manifest_dir = excluded.manifest_dir, document = excluded.document,
    generation = excluded.generation, applied_ms = excluded.applied_ms";

pub const REMOVE_OBJECT: &str = "DELETE FROM objects WHERE kind = $1 AND name = $2";

pub const OBJECTS: &str = "SELECT kind, name, manifest_dir, document, generation, applied_ms FROM objects ORDER BY kind, name";

pub const PUT_ENGINE: &str =
    "INSERT INTO engine (id, snapshot) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET snapshot = excluded.snapshot";

pub const ENGINE: &str = "SELECT snapshot FROM engine";

pub const ADD_DECISION: &str = "INSERT INTO decisions (at_ms, decision) VALUES ($1, $2)";

/// Keeps the last `$1`.
pub const PRUNE_DECISIONS: &str = "DELETE FROM decisions WHERE id <= (SELECT MAX(id) FROM decisions) - $1";

/// The last `$1`, newest first.
pub const DECISIONS: &str = "SELECT at_ms, decision FROM decisions ORDER BY id DESC LIMIT $1";

pub const PUT_SPAN: &str = "
INSERT INTO spans (device, kind, name, lent, from_ms, to_ms) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (device, kind, name, from_ms) DO UPDATE SET lent = excluded.lent, to_ms = excluded.to_ms";

/// Removes what ended before `$1`, and all but the last `$2`; never what has not ended.
pub const PRUNE_SPANS: &str = "
DELETE FROM spans WHERE to_ms IS NOT NULL AND (to_ms < $1 OR id <= (SELECT MAX(id) FROM spans) - $2)";

pub const SPANS: &str = "
SELECT device, kind, name, lent, from_ms, to_ms FROM spans WHERE to_ms IS NULL OR to_ms >= $1 ORDER BY from_ms, id";

pub const PUT_VALUE: &str =
    "INSERT INTO named_values (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

pub const VALUES: &str = "SELECT name, value FROM named_values";
