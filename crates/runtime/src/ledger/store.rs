//! Commits and loads.

use std::path::Path;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, query, raw_sql};

use super::{
    Commit, Error, LOADED_DECISIONS, Ledger, Loaded, MAX_DECISIONS, MAX_SPANS, ObjectRow, SPAN_AGE_MS, SpanRow, VERSION, sql,
};

type Result<T> = std::result::Result<T, sqlx::Error>;

impl Ledger {
    /// Makes the tables in a new ledger, checks the version of an old one.
    pub(super) async fn prepare(&self, dir: &Path) -> std::result::Result<(), Error> {
        let found = self.version().await.map_err(Error::database("open"))?;
        if found == VERSION { Ok(()) } else { Err(Error::Version { path: dir.to_owned(), found, expected: VERSION }) }
    }

    async fn version(&self) -> Result<i64> {
        let mut transaction = self.pool.begin().await?;
        let tables: i64 = query(sql::HAS_TABLES).fetch_one(&mut *transaction).await?.try_get(0)?;
        if tables == 0 {
            raw_sql(sql::CREATE).execute(&mut *transaction).await?;
            query(sql::WRITE_VERSION).bind(VERSION).execute(&mut *transaction).await?;
        }
        let found = query(sql::READ_VERSION).fetch_one(&mut *transaction).await?.try_get(0)?;
        transaction.commit().await?;
        Ok(found)
    }

    /// Keeps a change. When this returns, the end of any process does not lose it.
    pub async fn commit(&self, commit: &Commit) -> std::result::Result<(), Error> {
        self.write(commit).await.map_err(Error::database("write"))
    }

    async fn write(&self, commit: &Commit) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        write_objects(&mut transaction, commit).await?;
        write_history(&mut transaction, commit).await?;
        if let Some(snapshot) = &commit.engine {
            query(sql::PUT_ENGINE).bind(snapshot).execute(&mut *transaction).await?;
        }
        for (name, value) in &commit.values {
            query(sql::PUT_VALUE).bind(name).bind(value).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Reads all that is kept; of the spans those that had not ended before `spans_since_ms`.
    pub async fn load(&self, spans_since_ms: u64) -> std::result::Result<Loaded, Error> {
        self.read(spans_since_ms).await.map_err(Error::database("read"))
    }

    async fn read(&self, spans_since_ms: u64) -> Result<Loaded> {
        let mut transaction = self.pool.begin().await?;
        let objects = query(sql::OBJECTS).try_map(|row| object(&row)).fetch_all(&mut *transaction).await?;
        let engine = query(sql::ENGINE).try_map(|row: SqliteRow| row.try_get(0)).fetch_optional(&mut *transaction).await?;
        let decision = |row: SqliteRow| Ok((unsigned(&row, "at_ms")?, row.try_get("decision")?));
        let mut decisions = query(sql::DECISIONS).bind(LOADED_DECISIONS).try_map(decision).fetch_all(&mut *transaction).await?;
        decisions.reverse();
        let spans = query(sql::SPANS).bind(signed(spans_since_ms)).try_map(|row| span(&row)).fetch_all(&mut *transaction).await?;
        let value = |row: SqliteRow| Ok((row.try_get("name")?, row.try_get("value")?));
        let values = query(sql::VALUES).try_map(value).fetch_all(&mut *transaction).await?.into_iter().collect();
        transaction.commit().await?;
        Ok(Loaded { objects, engine, decisions, spans, values })
    }
}

async fn write_objects(connection: &mut SqliteConnection, commit: &Commit) -> Result<()> {
    // Removed first: an object that was replaced within one change is there afterwards.
    for (kind, name) in &commit.objects_removed {
        query(sql::REMOVE_OBJECT).bind(kind).bind(name).execute(&mut *connection).await?;
    }
    for object in &commit.objects_put {
        let ObjectRow { kind, name, manifest_dir, document, generation, applied_ms } = object;
        let put = query(sql::PUT_OBJECT).bind(kind).bind(name).bind(manifest_dir).bind(document);
        put.bind(signed(*generation)).bind(signed(*applied_ms)).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_history(connection: &mut SqliteConnection, commit: &Commit) -> Result<()> {
    for (at_ms, decision) in &commit.decisions {
        query(sql::ADD_DECISION).bind(signed(*at_ms)).bind(decision).execute(&mut *connection).await?;
    }
    if !commit.decisions.is_empty() {
        query(sql::PRUNE_DECISIONS).bind(MAX_DECISIONS).execute(&mut *connection).await?;
    }
    let mut newest_ms = None;
    for span in commit.spans_opened.iter().chain(&commit.spans_closed) {
        let SpanRow { device, kind, name, lent, from_ms, to_ms } = span;
        let put = query(sql::PUT_SPAN).bind(device).bind(kind).bind(name).bind(lent);
        put.bind(signed(*from_ms)).bind(to_ms.map(signed)).execute(&mut *connection).await?;
        newest_ms = newest_ms.max(Some(to_ms.unwrap_or(*from_ms)));
    }
    if let Some(newest_ms) = newest_ms {
        let oldest = signed(newest_ms.saturating_sub(SPAN_AGE_MS));
        query(sql::PRUNE_SPANS).bind(oldest).bind(MAX_SPANS).execute(&mut *connection).await?;
    }
    Ok(())
}

fn object(row: &SqliteRow) -> Result<ObjectRow> {
    Ok(ObjectRow {
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        manifest_dir: row.try_get("manifest_dir")?,
        document: row.try_get("document")?,
        generation: unsigned(row, "generation")?,
        applied_ms: unsigned(row, "applied_ms")?,
    })
}

fn span(row: &SqliteRow) -> Result<SpanRow> {
    let to_ms: Option<i64> = row.try_get("to_ms")?;
    Ok(SpanRow {
        device: row.try_get("device")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        lent: row.try_get("lent")?,
        from_ms: unsigned(row, "from_ms")?,
        to_ms: to_ms.map(|ms| u64::try_from(ms).unwrap_or(0)),
    })
}

/// SQL's integers are signed. Times and generations stay far below the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64> {
    let value: i64 = row.try_get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}
