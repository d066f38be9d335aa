//! `eta`: when waiting jobs are expected to start.

use tidegate_api::eta::{self, Etas};

use super::http::{Client, Error};
use super::out;
use super::snapshot::{self, Source};
use super::table::{Lean, lay_out};
use super::target::{self, Target};

/// Arguments of `eta`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// `job/NAME`. Absent: all that wait.
    #[arg(value_name = "job/NAME", value_parser = target::job)]
    target: Option<Target>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

pub async fn run(Args { target, json, source }: Args) -> Result<(), Error> {
    let etas = ask(target.as_ref().map(|target| target.name.as_str()), &source).await?;
    if json { out::json(&etas) } else { out::print(&text(&etas)) }
}

async fn ask(job: Option<&str>, source: &Source) -> Result<Etas, Error> {
    let Some(path) = &source.snapshot else {
        let path = job.map_or_else(|| "/api/v1/eta".to_owned(), |job| format!("/api/v1/eta/{job}"));
        return Client::new(&source.server)?.get(&path).await;
    };
    let engine = snapshot::read(path)?;
    let now = engine.state().now;
    match job {
        Some(job) => eta::of(&engine, job, now).map_err(|none| Error::Input(none.to_string())),
        None => Ok(eta::all(&engine, now)),
    }
}

/// The soonest first; those of which no start is foreseen last.
fn text(etas: &Etas) -> String {
    if etas.is_empty() {
        return "no job waits\n".to_owned();
    }
    let mut sorted: Vec<_> = etas.iter().collect();
    sorted.sort_by_key(|(name, eta)| (eta.at_ms.unwrap_or(u64::MAX), *name));
    let row = |(name, eta): (&String, &eta::Eta)| {
        let rests_on = eta.at_ms.map_or("", |_| eta.rests_on.words());
        vec![name.clone(), eta.text.clone(), rests_on.to_owned()]
    };
    let columns = [("JOB", Lean::Left), ("STARTS", Lean::Left), ("THIS", Lean::Left)];
    lay_out(&columns, &sorted.into_iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_api::eta::Eta;
    use tidegate_core::eta::Estimate;

    #[test]
    fn the_soonest_start_comes_first_and_what_cannot_be_foreseen_last() {
        let eta = |at_ms: Option<u64>, rests_on, text: &str| Eta { at_ms, until_ms: 9_000_000, rests_on, text: text.to_owned() };
        let etas = Etas::from([
            ("a".to_owned(), eta(None, Estimate::Certain, "not within 14 d, as far as can be seen")),
            ("b".to_owned(), eta(Some(7_200_000), Estimate::History, "02:00 UTC (in 2 h)")),
            ("c".to_owned(), eta(Some(60_000), Estimate::User, "00:01 UTC (in 60 s)")),
        ]);
        let expected = "\
JOB  STARTS                                  THIS
c    00:01 UTC (in 60 s)                     rests on run times that users named
b    02:00 UTC (in 2 h)                      rests on run times of the past
a    not within 14 d, as far as can be seen
";
        assert_eq!(text(&etas), expected);
        assert_eq!(text(&Etas::new()), "no job waits\n");
    }
}
