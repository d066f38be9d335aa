use super::*;

fn object(name: &str, generation: u64) -> ObjectRow {
    ObjectRow {
        kind: "TrainingJob".into(),
        name: name.into(),
        manifest_dir: "/m".into(),
        document: format!("{{\"g\":{generation}}}"),
        generation,
        applied_ms: 1_700_000_000_000,
    }
}

fn decision(at_ms: u64, subject: &str, decision: &str) -> DecisionRow {
    DecisionRow { at_ms, subject: subject.into(), decision: decision.into() }
}

/// The file of a ledger in a folder.
fn sqlite(ledger: &Ledger) -> &sqlx::SqlitePool {
    let Pool::Sqlite(pool) = &ledger.pool else { panic!("it is in a folder") };
    pool
}

fn span(name: &str, from_ms: u64, to_ms: Option<u64>) -> SpanRow {
    SpanRow { device: "gpu-0".into(), kind: "job".into(), name: name.into(), lent: true, from_ms, to_ms }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let ledger = Ledger::open(&data).await.unwrap();
    assert_eq!(ledger.load(0).await.unwrap(), Loaded::default());
    let commit = Commit {
        objects_put: vec![object("b", 1), object("a", 1)],
        engine: Some("{}".into()),
        decisions: vec![decision(1, "job/a", "\"x\""), decision(2, "job/b", "\"y\"")],
        spans_opened: vec![span("a", 10, None)],
        values: vec![("k".into(), "1".into())],
        ..Commit::default()
    };
    ledger.commit(&commit).await.unwrap();
    let change = Commit {
        objects_put: vec![object("a", 2)],
        objects_removed: vec![("TrainingJob".into(), "b".into()), ("Model".into(), "never there".into())],
        spans_closed: vec![span("a", 10, Some(20))],
        spans_opened: vec![span("b", 20, None)],
        values: vec![("k".into(), "2".into())],
        ..Commit::default()
    };
    ledger.commit(&change).await.unwrap();
    drop(ledger);

    let loaded = Ledger::open(&data).await.unwrap().load(0).await.unwrap();
    let expected = Loaded {
        objects: vec![object("a", 2)],
        engine: Some("{}".into()),
        decisions: vec![(1, "\"x\"".into()), (2, "\"y\"".into())],
        spans: vec![span("a", 10, Some(20)), span("b", 20, None)],
        values: [("k".to_owned(), "2".to_owned())].into(),
    };
    assert_eq!(loaded, expected);
}

#[tokio::test]
async fn a_ledger_in_use_is_refused_with_the_holder_and_free_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let first = Ledger::open(dir.path()).await.unwrap();
    let error = Ledger::open(dir.path()).await.unwrap_err();
    assert!(matches!(&error, Error::Held { pid, .. } if *pid == Some(std::process::id())), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert_eq!(exit::Error::from(error).code(), 64);
    first.close().await;
    Ledger::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).await.unwrap();
    sqlx::query("UPDATE schema_version SET version = 99").execute(sqlite(&ledger)).await.unwrap();
    ledger.close().await;
    for _ in 0..2 {
        let error = Ledger::open(dir.path()).await.unwrap_err();
        assert!(matches!(error, Error::Version { found: 99, expected: VERSION, .. }), "{error}");
        assert_eq!(exit::Error::from(error).code(), 64);
    }
}

#[tokio::test]
async fn a_commit_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).await.unwrap();
    sqlx::query("DROP TABLE named_values").execute(sqlite(&ledger)).await.unwrap();
    let commit = Commit { objects_put: vec![object("a", 1)], values: vec![("k".into(), "1".into())], ..Commit::default() };
    assert_eq!(ledger.commit(&commit).await.unwrap_err().category(), "database");
    let objects: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM objects").fetch_one(sqlite(&ledger)).await.unwrap();
    assert_eq!(objects, 0);
}

#[tokio::test]
async fn history_is_bounded_and_open_spans_are_never_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).await.unwrap();
    let count = MAX_DECISIONS + 50;
    let commit = Commit {
        decisions: (0..count).map(|i| decision(i, "job/a", &i.to_string())).collect(),
        spans_opened: std::iter::once(span("open", 0, None)).chain((0..count).map(|i| span("ended", i, Some(i + 1)))).collect(),
        ..Commit::default()
    };
    ledger.commit(&commit).await.unwrap();
    let decisions: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM decisions").fetch_one(sqlite(&ledger)).await.unwrap();
    assert_eq!(u64::try_from(decisions).unwrap(), MAX_DECISIONS);
    let loaded = ledger.load(0).await.unwrap();
    assert_eq!(loaded.decisions.len(), usize::try_from(LOADED_DECISIONS).unwrap());
    assert_eq!(loaded.decisions.last(), Some(&(count - 1, (count - 1).to_string())));
    assert_eq!(loaded.spans.len(), usize::try_from(MAX_SPANS).unwrap() + 1);

    let later = Commit { spans_opened: vec![span("new", SPAN_AGE_MS + count, None)], ..Commit::default() };
    ledger.commit(&later).await.unwrap();
    let names: Vec<String> = ledger.load(0).await.unwrap().spans.into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["open", "ended", "new"]);
}

#[tokio::test]
async fn spans_that_ended_before_the_time_asked_for_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).await.unwrap();
    let spans = vec![span("past", 0, Some(9)), span("across", 5, Some(15)), span("still", 7, None)];
    ledger.commit(&Commit { spans_opened: spans, ..Commit::default() }).await.unwrap();
    let names: Vec<String> = ledger.load(10).await.unwrap().spans.into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["across", "still"]);
}

#[tokio::test]
async fn tables_of_the_first_version_are_brought_forward_with_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteConnectOptions::new().filename(dir.path().join("ledger.db")).create_if_missing(true);
    let old = SqlitePoolOptions::new().connect_with(file).await.unwrap();
    let create = sql::MIGRATIONS[0].replace("{number}", sql::NUMBER);
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&old).await.unwrap();
    let filled = "UPDATE schema_version SET version = 1; INSERT INTO decisions (at_ms, decision) VALUES (7, '1')";
    sqlx::raw_sql(filled).execute(&old).await.unwrap();
    old.close().await;
    let ledger = Ledger::open(dir.path()).await.unwrap();
    assert_eq!(ledger.load(0).await.unwrap().decisions, [(7, "1".to_owned())]);
    ledger.commit(&Commit { decisions: vec![decision(8, "job/a", "2")], ..Commit::default() }).await.unwrap();
    let about = ledger.kept(Some("job/a"), None, 10).await.unwrap();
    assert_eq!(about.iter().map(|kept| kept.at_ms).collect::<Vec<_>>(), [8]);
}
