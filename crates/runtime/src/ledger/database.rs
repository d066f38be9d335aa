//! SQLite and PostgreSQL as one: statements with values in, rows out. (`sqlx::Any` reads no booleans of SQLite.)

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _, Sqlite, SqlitePool, query, raw_sql};

use super::sql;

pub type Result<T> = std::result::Result<T, sqlx::Error>;

/// Connections to one of the two.
#[derive(Clone, Debug)]
pub enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What is done whole or not at all.
pub enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// A value for a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Text(&'a str),
    Whole(i64),
    MaybeWhole(Option<i64>),
    Flag(bool),
}

/// A row of an answer; columns by their place.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A statement of either database with its values.
macro_rules! bound {
    ($sql:expr, $values:expr) => {
        $values.iter().fold(query($sql), |query, value| match *value {
            Value::Text(text) => query.bind(text),
            Value::Whole(number) => query.bind(number),
            Value::MaybeWhole(number) => query.bind(number),
            Value::Flag(flag) => query.bind(flag),
        })
    };
}

/// The column at a place, of either database.
macro_rules! column {
    ($row:expr, $at:expr) => {
        match $row {
            Row::Sqlite(row) => row.try_get($at),
            Row::Postgres(row) => row.try_get($at),
        }
    };
}

impl Pool {
    pub async fn begin(&self) -> Result<Transaction> {
        Ok(match self {
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
        })
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    /// How many rows it changed.
    pub async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        Ok(match self {
            Self::Sqlite(on) => bound!(sql, values).execute(&mut **on).await?.rows_affected(),
            Self::Postgres(on) => bound!(sql, values).execute(&mut **on).await?.rows_affected(),
        })
    }

    pub async fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        Ok(match self {
            Self::Sqlite(on) => bound!(sql, values).fetch_all(&mut **on).await?.into_iter().map(Row::Sqlite).collect(),
            Self::Postgres(on) => bound!(sql, values).fetch_all(&mut **on).await?.into_iter().map(Row::Postgres).collect(),
        })
    }

    /// The first row, if there is one.
    pub async fn row(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Whether there are tables; from then on nobody else makes any until the end.
    pub async fn has_tables(&mut self) -> Result<bool> {
        let look = match self {
            Self::Sqlite(_) => sql::HAS_TABLES,
            Self::Postgres(_) => {
                self.rows(sql::LOCK_SCHEMA_POSTGRES, &[]).await?;
                sql::HAS_TABLES_POSTGRES
            }
        };
        let found = self.row(look, &[]).await?.map(|row| row.whole(0)).transpose()?;
        Ok(found.unwrap_or_default() > 0)
    }

    /// Several statements that make tables.
    pub async fn migrate(&mut self, statements: &str) -> Result<()> {
        match self {
            Self::Sqlite(on) => {
                raw_sql(AssertSqlSafe(statements.replace("{number}", sql::NUMBER))).execute(&mut **on).await?;
            }
            Self::Postgres(on) => {
                raw_sql(AssertSqlSafe(statements.replace("{number}", sql::NUMBER_POSTGRES))).execute(&mut **on).await?;
            }
        }
        Ok(())
    }

    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(on) => on.commit().await,
            Self::Postgres(on) => on.commit().await,
        }
    }
}

impl Row {
    pub fn text(&self, at: usize) -> Result<String> {
        column!(self, at)
    }

    pub fn whole(&self, at: usize) -> Result<i64> {
        column!(self, at)
    }

    /// Times and generations: never negative.
    pub fn unsigned(&self, at: usize) -> Result<u64> {
        Ok(u64::try_from(self.whole(at)?).unwrap_or(0))
    }

    pub fn maybe_unsigned(&self, at: usize) -> Result<Option<u64>> {
        let value: Option<i64> = column!(self, at)?;
        Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
    }

    pub fn flag(&self, at: usize) -> Result<bool> {
        column!(self, at)
    }
}

/// SQL's integers are signed. Times and generations stay far below the limit.
pub fn whole<'a>(value: u64) -> Value<'a> {
    Value::Whole(signed(value))
}

pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
