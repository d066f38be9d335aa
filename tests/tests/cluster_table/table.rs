//! Reads the table of `cluster_table.rs`.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// One scenario: its name, and what happens in order.
#[derive(Debug)]
pub struct Scenario {
    pub name: String,
    pub steps: Vec<Step>,
}

/// Lines of one section.
#[derive(Debug)]
pub enum Step {
    Queues(Vec<Queue>),
    Comes(Vec<Comers>),
    Ends(Vec<Enders>),
    Expect(Vec<Expected>),
}

#[derive(Debug)]
pub struct Queue {
    pub name: String,
    pub gpus: u32,
    pub parent: Option<String>,
    pub borrow: Option<u32>,
}

/// By what pods are one gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    PodGroup,
    Job,
    Label,
}

/// Pods of one kind.
#[derive(Debug)]
pub struct Comers {
    pub name: String,
    pub count: u32,
    pub gpus: u32,
    pub queue: String,
    /// How many start together.
    pub gang: Option<(Bond, u32)>,
    pub priority: Option<i32>,
    /// An annotation of the topology, and its level.
    pub place: Option<(&'static str, String)>,
    /// A label of nodes.
    pub on: Option<(String, String)>,
    pub seconds: Option<u32>,
    pub pinned: bool,
    /// By `ResourceClaim`s instead of `nvidia.com/gpu`.
    pub claims: bool,
}

/// Running pods that are done: all, or so many.
#[derive(Debug)]
pub struct Enders {
    pub name: String,
    pub count: Option<usize>,
}

#[derive(Debug)]
pub enum Expected {
    /// So many of these pods run, in so many places of a level.
    Runs { name: String, count: usize, places: Option<(usize, String)> },
    /// So many of them wait, and are told a reason with these words.
    Waits { name: String, count: usize, words: String },
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs { name, count, places: None } => write!(f, "{name} runs {count}"),
            Self::Runs { name, count, places: Some((places, level)) } => write!(f, "{name} runs {count} in {places} {level}"),
            Self::Waits { name, count, words } => write!(f, "{name} waits {count}: {words}"),
        }
    }
}

/// The scenarios of a text. A section goes on until the next word at the beginning of a line.
pub fn scenarios(text: &str) -> Result<Vec<Scenario>> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        if let Some(name) = line.strip_prefix("== ") {
            scenarios.push(Scenario { name: name.to_owned(), steps: Vec::new() });
            continue;
        }
        let scenario = scenarios.last_mut().with_context(|| format!("a scenario begins with `== `: {line}"))?;
        let rest = match line.split_once(char::is_whitespace) {
            Some((word, rest)) if !word.is_empty() => {
                scenario.steps.push(section(word).with_context(|| format!("{}: no section `{word}`", scenario.name))?);
                rest
            }
            _ => line,
        };
        let step = scenario.steps.last_mut().with_context(|| format!("a section first: {line}"))?;
        add(step, rest.trim()).with_context(|| format!("{}: `{line}`", scenario.name))?;
    }
    Ok(scenarios)
}

fn section(word: &str) -> Option<Step> {
    Some(match word {
        "queues" => Step::Queues(Vec::new()),
        "comes" => Step::Comes(Vec::new()),
        "ends" => Step::Ends(Vec::new()),
        "expect" => Step::Expect(Vec::new()),
        _ => return None,
    })
}

fn add(step: &mut Step, line: &str) -> Result<()> {
    match step {
        Step::Queues(all) => all.push(queue(line)?),
        Step::Comes(all) => all.push(comers(line)?),
        Step::Ends(all) => all.push(enders(line)?),
        Step::Expect(all) => all.push(expected(line)?),
    }
    Ok(())
}

/// `KEY=VALUE`, or a word alone.
fn pair(word: &str) -> (&str, &str) {
    word.split_once('=').unwrap_or((word, ""))
}

fn queue(line: &str) -> Result<Queue> {
    let mut words = line.split_whitespace();
    let name = words.next().context("NAME gpu=N")?.to_owned();
    let mut queue = Queue { name, gpus: 0, parent: None, borrow: None };
    for (key, value) in words.map(pair) {
        match key {
            "gpu" => queue.gpus = value.parse()?,
            "borrow" => queue.borrow = Some(value.parse()?),
            "parent" => queue.parent = Some(value.to_owned()),
            _ => bail!("no option `{key}` of a queue"),
        }
    }
    Ok(queue)
}

fn comers(line: &str) -> Result<Comers> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, shape, "of", queue, options @ ..] = words.as_slice() else { bail!("NAME COUNTxGPUS of QUEUE") };
    let (count, gpus) = shape.split_once('x').context("COUNTxGPUS")?;
    let mut comers = Comers {
        name: (*name).to_owned(),
        count: count.parse()?,
        gpus: gpus.parse()?,
        queue: (*queue).to_owned(),
        gang: None,
        priority: None,
        place: None,
        on: None,
        seconds: None,
        pinned: false,
        claims: false,
    };
    for (key, value) in options.iter().map(|word| pair(word)) {
        let size = || if value.is_empty() { Ok(comers.count) } else { value.parse() };
        match key {
            "group" => comers.gang = Some((Bond::PodGroup, size()?)),
            "job" => comers.gang = Some((Bond::Job, size()?)),
            "gang" => comers.gang = Some((Bond::Label, size()?)),
            "prio" => comers.priority = Some(value.parse()?),
            "within" => comers.place = Some(("tidegate.dev/required-topology", value.to_owned())),
            "near" => comers.place = Some(("tidegate.dev/preferred-topology", value.to_owned())),
            "on" => comers.on = value.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned())),
            "takes" => comers.seconds = Some(value.parse()?),
            "pinned" => comers.pinned = true,
            "claims" => comers.claims = true,
            _ => bail!("no option `{key}` of pods"),
        }
    }
    Ok(comers)
}

fn enders(line: &str) -> Result<Enders> {
    let (name, count) = line.split_once(' ').map_or((line, None), |(name, count)| (name, Some(count)));
    Ok(Enders { name: name.to_owned(), count: count.map(str::parse).transpose()? })
}

fn expected(line: &str) -> Result<Expected> {
    let (said, words) = line.split_once(": ").unwrap_or((line, ""));
    let said: Vec<&str> = said.split_whitespace().collect();
    Ok(match said.as_slice() {
        [name, "runs", count] => Expected::Runs { name: (*name).to_owned(), count: count.parse()?, places: None },
        [name, "runs", count, "in", places, level] => {
            let places = Some((places.parse()?, (*level).to_owned()));
            Expected::Runs { name: (*name).to_owned(), count: count.parse()?, places }
        }
        [name, "waits", count] => {
            ensure!(!words.is_empty(), "why does it wait?");
            Expected::Waits { name: (*name).to_owned(), count: count.parse()?, words: words.to_owned() }
        }
        _ => bail!("NAME runs N [in N LEVEL], or NAME waits N: WORDS"),
    })
}

impl Expected {
    /// Of which pods.
    pub fn name(&self) -> &str {
        match self {
            Self::Runs { name, .. } | Self::Waits { name, .. } => name,
        }
    }
}
