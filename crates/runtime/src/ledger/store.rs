//! Commits and loads.

use super::database::{Result, Row, Transaction, Value, signed, whole};
use super::{
    Commit, DecisionRow, Error, Kept, LOADED_DECISIONS, Lead, Ledger, Loaded, MAX_SPANS, ObjectRow, SPAN_AGE_MS, SpanRow,
    VERSION, sql,
};

/// Why a commit was not kept.
enum Refused {
    NotLeader,
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

impl Ledger {
    /// Makes the tables in a new ledger, brings those of an older version forward, and refuses those of a newer one.
    pub(super) async fn prepare(&self) -> std::result::Result<(), Error> {
        let found = self.migrate().await.map_err(Error::database("open"))?;
        if found == VERSION { Ok(()) } else { Err(Error::Version { place: self.place.clone(), found, expected: VERSION }) }
    }

    async fn migrate(&self) -> Result<i64> {
        let mut transaction = self.pool.begin().await?;
        let mut version = 0;
        if transaction.has_tables().await? {
            let row = transaction.row(sql::READ_VERSION, &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
            version = row.whole(0)?;
        }
        for statements in sql::MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
            transaction.migrate(statements).await?;
            version += 1;
            transaction.execute(sql::WRITE_VERSION, &[Value::Whole(version)]).await?;
        }
        transaction.commit().await?;
        Ok(version)
    }

    /// Keeps a change. When this returns, the end of any process does not lose it.
    pub async fn commit(&self, commit: &Commit) -> std::result::Result<(), Error> {
        self.write(None, commit).await.map_err(|refused| self.refused(refused))
    }

    /// Makes `holder` the one whose commits are taken, from now on; those of earlier ones are refused.
    pub async fn take(&self, holder: &str, now_ms: u64) -> std::result::Result<Lead, Error> {
        self.lead(holder, now_ms).await.map_err(Error::database("take"))
    }

    async fn lead(&self, holder: &str, now_ms: u64) -> Result<Lead> {
        let mut transaction = self.pool.begin().await?;
        transaction.execute(sql::TAKE, &[Value::Text(holder), whole(now_ms)]).await?;
        let row = transaction.row(sql::EPOCH, &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
        let epoch = row.whole(0)?;
        transaction.commit().await?;
        Ok(Lead { holder: holder.to_owned(), epoch })
    }

    /// Keeps a change of the one that leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`] once another one has taken the ledger: then nothing is changed.
    pub async fn commit_as(&self, lead: &Lead, commit: &Commit) -> std::result::Result<(), Error> {
        self.write(Some(lead), commit).await.map_err(|refused| self.refused(refused))
    }

    fn refused(&self, refused: Refused) -> Error {
        match refused {
            Refused::NotLeader => Error::NotLeader { place: self.place.clone() },
            Refused::Failed(source) => Error::database("write")(source),
        }
    }

    async fn write(&self, lead: Option<&Lead>, commit: &Commit) -> std::result::Result<(), Refused> {
        let mut transaction = self.pool.begin().await?;
        if let Some(Lead { holder, epoch }) = lead {
            let changed = transaction.execute(sql::STILL_LEADS, &[Value::Text(holder), Value::Whole(*epoch)]).await?;
            if changed == 0 {
                return Err(Refused::NotLeader);
            }
        }
        write_objects(&mut transaction, commit).await?;
        self.write_decisions(&mut transaction, &commit.decisions).await?;
        write_spans(&mut transaction, commit).await?;
        if let Some(snapshot) = &commit.engine {
            transaction.execute(sql::PUT_ENGINE, &[Value::Text(snapshot)]).await?;
        }
        for (name, value) in &commit.values {
            transaction.execute(sql::PUT_VALUE, &[Value::Text(name), Value::Text(value)]).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn write_decisions(&self, transaction: &mut Transaction, decisions: &[DecisionRow]) -> Result<()> {
        for DecisionRow { at_ms, subject, decision } in decisions {
            let values = [whole(*at_ms), Value::Text(subject), Value::Text(decision)];
            transaction.execute(sql::ADD_DECISION, &values).await?;
        }
        let Some(newest_ms) = decisions.iter().map(|row| row.at_ms).max() else { return Ok(()) };
        transaction.execute(sql::PRUNE_DECISIONS, &[whole(self.keep.decisions)]).await?;
        if let Some(age_ms) = self.keep.age_ms {
            transaction.execute(sql::PRUNE_OLD_DECISIONS, &[whole(newest_ms.saturating_sub(age_ms))]).await?;
        }
        Ok(())
    }

    /// Reads all that is kept; of the spans those that had not ended before `spans_since_ms`.
    pub async fn load(&self, spans_since_ms: u64) -> std::result::Result<Loaded, Error> {
        self.read(spans_since_ms).await.map_err(Error::database("read"))
    }

    async fn read(&self, spans_since_ms: u64) -> Result<Loaded> {
        let mut transaction = self.pool.begin().await?;
        let objects = each(&transaction.rows(sql::OBJECTS, &[]).await?, object)?;
        let engine = transaction.row(sql::ENGINE, &[]).await?.map(|row| row.text(0)).transpose()?;
        let last = [Value::Whole(i64::MAX), Value::Whole(LOADED_DECISIONS)];
        let mut decisions = each(&transaction.rows(sql::DECISIONS, &last).await?, |row| Ok((row.unsigned(1)?, row.text(2)?)))?;
        decisions.reverse();
        let spans = each(&transaction.rows(sql::SPANS, &[whole(spans_since_ms)]).await?, span)?;
        let values = each(&transaction.rows(sql::VALUES, &[]).await?, |row| Ok((row.text(0)?, row.text(1)?)))?;
        transaction.commit().await?;
        Ok(Loaded { objects, engine, decisions, spans, values: values.into_iter().collect() })
    }

    /// A named value.
    pub async fn value(&self, name: &str) -> std::result::Result<Option<String>, Error> {
        let read = async {
            let mut transaction = self.pool.begin().await?;
            let row = transaction.row(sql::VALUE, &[Value::Text(name)]).await?;
            transaction.commit().await?;
            row.map(|row| row.text(0)).transpose()
        };
        read.await.map_err(Error::database("read"))
    }

    /// The last decisions of before number `before`, newest first: of all, or those about one subject.
    pub async fn kept(&self, about: Option<&str>, before: Option<u64>, most: u32) -> std::result::Result<Vec<Kept>, Error> {
        let mut values = vec![Value::Whole(before.map_or(i64::MAX, signed)), Value::Whole(i64::from(most))];
        values.extend(about.map(Value::Text));
        let statement = if about.is_some() { sql::DECISIONS_ABOUT } else { sql::DECISIONS };
        let read = async {
            let mut transaction = self.pool.begin().await?;
            let kept = |row: &Row| Ok(Kept { number: row.unsigned(0)?, at_ms: row.unsigned(1)?, decision: row.text(2)? });
            let rows = transaction.rows(statement, &values).await?;
            transaction.commit().await?;
            each(&rows, kept)
        };
        read.await.map_err(Error::database("read"))
    }
}

fn each<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    rows.iter().map(read).collect()
}

async fn write_objects(transaction: &mut Transaction, commit: &Commit) -> Result<()> {
    // Removed first: an object that was replaced within one change is there afterwards.
    for (kind, name) in &commit.objects_removed {
        transaction.execute(sql::REMOVE_OBJECT, &[Value::Text(kind), Value::Text(name)]).await?;
    }
    for ObjectRow { kind, name, manifest_dir, document, generation, applied_ms } in &commit.objects_put {
        let texts = [kind, name, manifest_dir, document].map(|text| Value::Text(text));
        let values = [&texts[..], &[whole(*generation), whole(*applied_ms)]].concat();
        transaction.execute(sql::PUT_OBJECT, &values).await?;
    }
    Ok(())
}

async fn write_spans(transaction: &mut Transaction, commit: &Commit) -> Result<()> {
    let mut newest_ms = None;
    for SpanRow { device, kind, name, lent, from_ms, to_ms } in commit.spans_opened.iter().chain(&commit.spans_closed) {
        let texts = [device, kind, name].map(|text| Value::Text(text));
        let times = [Value::Flag(*lent), whole(*from_ms), Value::MaybeWhole(to_ms.map(signed))];
        transaction.execute(sql::PUT_SPAN, &[texts, times].concat()).await?;
        newest_ms = newest_ms.max(Some(to_ms.unwrap_or(*from_ms)));
    }
    if let Some(newest_ms) = newest_ms {
        let oldest = whole(newest_ms.saturating_sub(SPAN_AGE_MS));
        transaction.execute(sql::PRUNE_SPANS, &[oldest, Value::Whole(MAX_SPANS)]).await?;
    }
    Ok(())
}

fn object(row: &Row) -> Result<ObjectRow> {
    Ok(ObjectRow {
        kind: row.text(0)?,
        name: row.text(1)?,
        manifest_dir: row.text(2)?,
        document: row.text(3)?,
        generation: row.unsigned(4)?,
        applied_ms: row.unsigned(5)?,
    })
}

fn span(row: &Row) -> Result<SpanRow> {
    Ok(SpanRow {
        device: row.text(0)?,
        kind: row.text(1)?,
        name: row.text(2)?,
        lent: row.flag(3)?,
        from_ms: row.unsigned(4)?,
        to_ms: row.maybe_unsigned(5)?,
    })
}
