//! The command line, by hand: a parser crate would take longer to build than everything else here.

/// Printed on a wrong command line.
pub const USAGE: &str = "usage: cargo xtask test [--quick | --cluster | --all]
       cargo xtask scenario tide|crash [--json] [--seed N]
        cargo xtask scenario tide --picture PNG
        cargo xtask scenario beside [--json] [--minutes N] [--nodes N] [--seed N] [--rival-gpus]
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
    /// The same, on a cluster beside other schedulers: they are built first.
    OnCluster {
        binary: &'static str,
        arguments: Vec<String>,
    },
    /// A benchmark that cargo knows, and its arguments.
    Bench {
        target: &'static str,
        arguments: Vec<String>,
    },
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
        ["scenario", "beside", ..] => {
            Ok(Chore::OnCluster { binary: "scenario", arguments: words.iter().skip(1).map(ToString::to_string).collect() })
        }
        ["scenario", rest @ ..] => program("scenario", rest),
        ["bench", "engine", rest @ ..] => {
            Ok(Chore::Bench { target: "engine", arguments: rest.iter().map(ToString::to_string).collect() })
        }
        ["bench", "cluster", ..] => {
            let arguments = words.iter().skip(1).map(ToString::to_string).collect();
            Ok(Chore::OnCluster { binary: "bench", arguments })
        }
        ["bench", rest @ ..] => program("bench", rest),
        [other, ..] => Err(format!("no chore is called `{other}`")),
    }
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
        let beside = Chore::OnCluster { binary: "scenario", arguments: vec!["beside".into(), "--json".into()] };
        assert_eq!(parsed("scenario beside --json"), Ok(beside));
        let cluster = Chore::OnCluster { binary: "bench", arguments: vec!["cluster".into(), "--json".into()] };
        assert_eq!(parsed("bench cluster --json"), Ok(cluster));
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
