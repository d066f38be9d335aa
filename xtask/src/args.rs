//! The command line, by hand: a parser crate would take longer to build than everything else here.

/// Printed on a wrong command line.
pub const USAGE: &str = "usage: cargo xtask test [--quick | --cluster | --all]
       cargo xtask scenario tide|crash [--json] [--seed N]
        cargo xtask scenario tide --picture PNG
        cargo xtask scenario beside [--json] [--minutes N] [--nodes N] [--seed N] [--rival-gpus]
        cargo xtask scenario cluster [--json] [--seed N] [--slo-ms N] [--stretch TIMES]
        cargo xtask bench agent|batching [--json]
        cargo xtask bench cluster [--json] [--nodes N] [--pods N] [--gangs N] [--only tidegate|kube-scheduler]
        cargo xtask bench engine [--json] [--gpus N,N..] [--cycles N] [--seed N]
        cargo xtask docs";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Chore {
    Help,
    /// These tests, in this order, with one count.
    Test(&'static [Tier]),
    /// Write what the documentation has from the code.
    Docs,
    /// A binary of the package `tidegate-tests` and its arguments.
    Program {
        binary: &'static str,
        arguments: Vec<String>,
    },
    /// The same, on a cluster: its programs are built first, and what is needed beside.
    OnCluster {
        beside: Beside,
        binary: &'static str,
        arguments: Vec<String>,
    },
    /// A benchmark that cargo knows, and its arguments.
    Bench {
        target: &'static str,
        arguments: Vec<String>,
    },
}

/// What is needed beside a cluster's own programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Other schedulers, and simulated nodes.
    Rivals,
    /// Pods with a network of their own, and the example's prepared model.
    Example,
}

/// Which tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Those that need no outside program.
    Quick,
    /// All that need no cluster.
    Usual,
    /// Those on a real kubelet.
    Cluster,
}

/// The chore that `words` ask for, or what is wrong with them.
pub fn parse(words: &[String]) -> Result<Chore, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Err("a chore is missing".into()),
        ["help" | "--help" | "-h"] => Ok(Chore::Help),
        ["test"] => Ok(Chore::Test(&[Tier::Usual])),
        ["test", "--quick"] => Ok(Chore::Test(&[Tier::Quick])),
        ["test", "--cluster"] => Ok(Chore::Test(&[Tier::Cluster])),
        ["test", "--all"] => Ok(Chore::Test(&[Tier::Usual, Tier::Cluster])),
        ["test", other, ..] => Err(format!("test takes no `{other}`")),
        ["docs"] => Ok(Chore::Docs),
        ["docs", other, ..] => Err(format!("docs takes no `{other}`")),
        ["scenario", "cluster", ..] => Ok(on_cluster(Beside::Example, "scenario", &words)),
        ["scenario", "beside", ..] => Ok(on_cluster(Beside::Rivals, "scenario", &words)),
        ["scenario", rest @ ..] => program("scenario", rest),
        ["bench", "engine", rest @ ..] => {
            Ok(Chore::Bench { target: "engine", arguments: rest.iter().map(ToString::to_string).collect() })
        }
        ["bench", "cluster", ..] => Ok(on_cluster(Beside::Rivals, "bench", &words)),
        ["bench", rest @ ..] => program("bench", rest),
        [other, ..] => Err(format!("no chore is called `{other}`")),
    }
}

/// The words after the chore's are the binary's.
fn on_cluster(beside: Beside, binary: &'static str, words: &[&str]) -> Chore {
    Chore::OnCluster { beside, binary, arguments: words.iter().skip(1).map(ToString::to_string).collect() }
}

/// The binary itself knows its names and flags, so they are passed on as they are.
fn program(binary: &'static str, rest: &[&str]) -> Result<Chore, String> {
    match rest.first() {
        Some(name) if !name.starts_with('-') => {
            Ok(Chore::Program { binary, arguments: rest.iter().map(ToString::to_string).collect() })
        }
        _ => Err(format!("{binary} needs a name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Chore, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_documented_line_is_understood() {
        assert_eq!(parsed("test"), Ok(Chore::Test(&[Tier::Usual])));
        assert_eq!(parsed("test --quick"), Ok(Chore::Test(&[Tier::Quick])));
        assert_eq!(parsed("test --cluster"), Ok(Chore::Test(&[Tier::Cluster])));
        assert_eq!(parsed("test --all"), Ok(Chore::Test(&[Tier::Usual, Tier::Cluster])));
        assert_eq!(parsed("docs"), Ok(Chore::Docs));
        let tide = Chore::Program { binary: "scenario", arguments: vec!["tide".into(), "--json".into()] };
        assert_eq!(parsed("scenario tide --json"), Ok(tide));
        let on_cluster = |beside, binary| {
            let arguments = vec!["cluster".into(), "--json".into()];
            Chore::OnCluster { beside, binary, arguments }
        };
        assert_eq!(parsed("bench cluster --json"), Ok(on_cluster(Beside::Rivals, "bench")));
        assert_eq!(parsed("scenario cluster --json"), Ok(on_cluster(Beside::Example, "scenario")));
        let beside = vec!["beside".into(), "--json".into()];
        let beside = Chore::OnCluster { beside: Beside::Rivals, binary: "scenario", arguments: beside };
        assert_eq!(parsed("scenario beside --json"), Ok(beside));
        let engine = Chore::Bench { target: "engine", arguments: vec!["--json".into()] };
        assert_eq!(parsed("bench engine --json"), Ok(engine));
    }

    #[test]
    fn a_wrong_line_is_refused_with_the_word_that_is_wrong() {
        assert!(parsed("tset").unwrap_err().contains("tset"));
        assert!(parsed("test --quik").unwrap_err().contains("--quik"));
        assert!(parsed("bench --json").unwrap_err().contains("name"));
        assert!(parsed("").is_err());
    }
}
