//! No input makes a reader panic, and whatever is wrong is told by line and field.

use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::generate::Kind;

const KINDS: [(Kind, Format); 5] = [
    (Kind::Philly, Format::Philly),
    (Kind::OpenbPods, Format::Openb),
    (Kind::Pollux, Format::Pollux),
    (Kind::Tiresias, Format::Tiresias),
    (Kind::KueueGenerator, Format::KueueGenerator),
];

/// A folder with a throughput table, so that Gavel's reader gets as far as the rows.
fn label() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("simulation_throughputs.json"), "{\"v100\": {\"('M', 1)\": {\"null\": 4.0}}}").unwrap();
    let label = folder.path().join("trace");
    (folder, label)
}

/// Reads all, stopping and skipping, and checks what is told.
fn read(bytes: &[u8], format: Format, label: &Path) -> Result<(), TestCaseError> {
    for skip in [false, true] {
        let mut bad = Bad::new(skip);
        let outcome = jobs_from(Cursor::new(bytes.to_vec()), label, format, &mut bad).and_then(|jobs| {
            let mut last = 0;
            jobs.take(100_000).try_for_each(|job| {
                let job = job?;
                assert!(job.submit_ms >= last && job.gpu_milli <= 1000 && job.duration_ms != Some(0), "{job:?}");
                assert_eq!(job.gpus == 0, job.gpu_milli == 0, "{job:?}");
                last = job.submit_ms;
                Ok(())
            })
        });
        match outcome {
            Ok(()) => prop_assert!(skip || bad.rows() == 0),
            Err(error @ Error::Row { .. }) => {
                prop_assert!(!skip && bad.rows() > 0, "{error}");
                check(&error)?;
            }
            Err(error) => check(&error)?,
        }
        prop_assert!(bad.first().iter().all(|line| line.starts_with("line ") && line.contains(" is \"")), "{bad}");
    }
    Ok(())
}

fn check(error: &Error) -> Result<(), TestCaseError> {
    let (line, field, remedy) = match error {
        Error::Row { line, field, remedy, .. } => (*line, (*field).to_owned(), (*remedy).to_owned()),
        Error::Layout { line, field, remedy, .. } => (*line, field.clone(), remedy.clone()),
        other => return Err(TestCaseError::fail(format!("neither row nor layout: {other}"))),
    };
    prop_assert!(line >= 1 && !field.is_empty() && remedy.len() > 5, "{error}");
    prop_assert!(error.to_string().contains(&format!("line {line}: {field} is ")), "{error}");
    prop_assert_eq!(error.code(), 64);
    Ok(())
}

fn generated(kind: Kind, rows: u32, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    kind.write(rows, seed, &mut out).unwrap();
    out
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), magic in any::<bool>()) {
        let (_folder, label) = label();
        let bytes = if magic { [&[0x1f, 0x8b, 8, 0][..], &bytes].concat() } else { bytes };
        for format in Format::value_variants() {
            read(&bytes, *format, &label)?;
        }
    }

    #[test]
    fn any_text_after_a_good_header_is_read_or_refused(rows in "([-a-zA-Z0-9.:|,\t\"{}\\[\\]\r\n ]|\\PC){0,300}") {
        let (_folder, label) = label();
        for (kind, format) in KINDS {
            let head = String::from_utf8(generated(kind, 1, 1)).unwrap();
            let head = head.lines().next().unwrap();
            read(format!("{head}\n{rows}").as_bytes(), format, &label)?;
        }
        read(format!("M\tc\td\t-n\t1\t5\t1\t1\t-1\t0\n{rows}").as_bytes(), Format::Gavel, &label)?;
    }

    #[test]
    fn a_file_cut_anywhere_is_read_or_refused(which in 0..KINDS.len(), cut in any::<prop::sample::Index>(), seed in any::<u64>(), packed in any::<bool>()) {
        let (kind, format) = KINDS[which];
        let mut bytes = generated(kind, 12, seed);
        if packed {
            bytes = gzipped(&bytes);
        }
        bytes.truncate(cut.index(bytes.len()));
        read(&bytes, format, &label().1)?;
    }

    #[test]
    fn a_file_with_some_bytes_changed_is_read_or_refused(
        which in 0..KINDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"-9.,\n\r\t\"eN:x ".to_vec())]), 1..8),
        packed in any::<bool>(),
    ) {
        let (kind, format) = KINDS[which];
        let mut bytes = generated(kind, 12, 3);
        if packed {
            bytes = gzipped(&bytes);
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read(&bytes, format, &label().1)?;
    }
}
