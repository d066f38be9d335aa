//! `explain`: the engine's answer as text for a person.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_api::view::{Decision, Explanation};

use super::http::{Client, Error, Server};
use super::out;
use super::target::{self, Target};

/// Arguments of `explain`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// `job/NAME` or `model/NAME`.
    #[arg(value_name = "KIND/NAME", value_parser = target::workload)]
    target: Target,
    #[command(flatten)]
    server: Server,
}

pub async fn run(Args { target, server }: Args) -> Result<(), Error> {
    let path = format!("/api/v1/explain/{}/{}", target.kind.word(), target.name);
    let explanation: Explanation = Client::new(&server)?.get(&path).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out::print(&text(&explanation, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)))
}

fn text(explanation: &Explanation, now_ms: u64) -> String {
    let Explanation { subject, status, because, would_change, history } = explanation;
    let history: Vec<_> = history.iter().map(|d| decision(d, now_ms)).collect();
    let named = status.starts_with(subject.as_str());
    let mut lines = vec![if named { status.clone() } else { format!("{subject}: {status}") }];
    for (heading, facts) in [("Because", because), ("What would change it", would_change), ("What happened", &history)] {
        if !facts.is_empty() {
            lines.push(format!("\n{heading}:"));
            lines.extend(facts.iter().map(|fact| format!("  - {fact}")));
        }
    }
    lines.join("\n") + "\n"
}

fn decision(decision: &Decision, now_ms: u64) -> String {
    let Decision { at_ms, action, subject: _, detail, reason, category: _ } = decision;
    let what = [action.replace('_', " "), detail.clone()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    format!("{} ago: {}, because {reason}", span(now_ms.saturating_sub(*at_ms)), what.join(" "))
}

/// A length of time in its largest whole unit.
pub fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_reads_as_text() {
        let explanation = Explanation {
            subject: "job/night".to_owned(),
            status: "running with 2 of 4 workers".to_owned(),
            because: vec!["model/minilm reclaimed gpu2 and gpu3 for its demand".to_owned()],
            would_change: vec!["model/minilm needing 1 device instead of 3".to_owned()],
            history: vec![Decision {
                at_ms: 5_000,
                action: "stop_job".to_owned(),
                subject: "job/night".to_owned(),
                detail: "4 -> 2 workers".to_owned(),
                reason: "model/minilm wants 3 devices".to_owned(),
                category: "reclaim".to_owned(),
            }],
        };
        let expected = "job/night: running with 2 of 4 workers\n\n\
            Because:\n  - model/minilm reclaimed gpu2 and gpu3 for its demand\n\n\
            What would change it:\n  - model/minilm needing 1 device instead of 3\n\n\
            What happened:\n  - 12 s ago: stop job 4 -> 2 workers, because model/minilm wants 3 devices\n";
        assert_eq!(text(&explanation, 17_000), expected);
    }

    #[test]
    fn what_is_not_known_has_no_heading() {
        let explanation = Explanation { subject: "model/m".to_owned(), status: "serving".to_owned(), ..Explanation::default() };
        assert_eq!(text(&explanation, 0), "model/m: serving\n");
        let explanation = Explanation { status: "model/m serves".to_owned(), ..explanation };
        assert_eq!(text(&explanation, 0), "model/m serves\n", "the subject is not said twice");
    }

    #[test]
    fn a_length_of_time_is_said_in_one_unit() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(119_999), "119 s");
        assert_eq!(span(120_000), "2 min");
        assert_eq!(span(7_200_000), "2 h");
        assert_eq!(span(200_000_000), "2 d");
    }
}
