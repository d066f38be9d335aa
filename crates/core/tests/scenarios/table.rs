//! Reads the tables of `tests/scenarios.rs`.

use std::collections::BTreeMap;

use tidegate_core::labels::{Requirement, Rule};
use tidegate_core::mig::Profile;
use tidegate_core::state::{Amount, Ask, ClassWish, Group, JobSpec, Preference, Spread, Term, Toleration};

/// One line of a section, in words.
pub type Line = Vec<String>;

/// One case: its name and its sections in order.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub sections: Vec<(String, Vec<Line>)>,
}

const SECTIONS: [&str; 8] = ["policy", "namespaces", "nodes", "queues", "running", "waiting", "expect", "later"];

/// The cases of a text. A section goes on until the next word at the beginning of a line.
pub fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.to_owned(), sections: Vec::new() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("a case begins with `== `: {line}"));
        let mut words: Line = line.split_whitespace().map(str::to_owned).collect();
        if !line.starts_with(' ') {
            let section = words.remove(0);
            assert!(SECTIONS.contains(&section.as_str()), "{}: no section `{section}`", case.name);
            case.sections.push((section, Vec::new()));
        }
        let (_, lines) = case.sections.last_mut().unwrap_or_else(|| panic!("a section first: {line}"));
        if !words.is_empty() {
            lines.push(words);
        }
    }
    cases
}

/// `KEY=VALUE`, or a word alone.
pub fn pair(word: &str) -> (&str, &str) {
    word.split_once('=').unwrap_or((word, ""))
}

pub fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// `30s` in milliseconds.
pub fn time(text: &str) -> u64 {
    number::<u64>(text.trim_end_matches([':', 's'])) * 1_000
}

/// `3` or `0-3`.
pub fn range(text: &str) -> std::ops::RangeInclusive<u32> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    number(from)..=number(to)
}

fn amount(text: &str) -> Amount {
    let mig = |text: &str| match text {
        "1g" => Profile::G1,
        "1g+" => Profile::G1Plus,
        "2g" => Profile::G2,
        "3g" => Profile::G3,
        "4g" => Profile::G4,
        "7g" => Profile::G7,
        other => panic!("no profile `{other}`"),
    };
    match text {
        "cpu" => Amount::None,
        text if text.ends_with("MiB") => Amount::MemoryMib(number(text.trim_end_matches("MiB"))),
        text if text.ends_with('m') => Amount::Milli(number(text.trim_end_matches('m'))),
        text if text.contains('g') => Amount::Mig(mig(text)),
        text => Amount::Whole(number(text)),
    }
}

fn spread(text: &str) -> Spread {
    Spread { level: text.trim_end_matches('!').to_owned(), required: text.ends_with('!') }
}

fn group(number: usize, text: &str) -> Group {
    let (size, spread_of) = text.split_once('@').map_or((text, None), |(size, level)| (size, Some(level)));
    let (workers, ask) = size.split_once('x').unwrap_or_else(|| panic!("`{text}` is no WORKERSxASK"));
    let workers = range(workers);
    let ask = Ask { amount: amount(ask), ..Ask::default() };
    Group { name: format!("g{number}"), min: *workers.start(), max: *workers.end(), ask, spread: spread_of.map(spread) }
}

/// `1xcpu+2x4`; the `+` of a MIG profile is not followed by a group.
fn groups(shape: &str) -> Vec<Group> {
    let mut parts: Vec<String> = Vec::new();
    for part in shape.split('+') {
        match parts.last_mut() {
            Some(last) if !part.contains('x') => *last = format!("{last}+{part}"),
            _ => parts.push(part.to_owned()),
        }
    }
    parts.iter().enumerate().map(|(number, part)| group(number, part)).collect()
}

fn classes(text: &str) -> Vec<ClassWish> {
    let wish = |text: &str| {
        let (class, speed) = text.split_once(':').unwrap_or((text, "1000"));
        ClassWish { class: class.into(), speed_milli: number(speed), devices: 0 }
    };
    text.split(',').map(wish).collect()
}

/// `KEY:VALUE,VALUE`, `KEY:>N`, `KEY:<N`, `KEY` or `!KEY`, joined by `&`.
pub fn term(text: &str) -> Term {
    let requirement = |text: &str| {
        let (key, rule) = match text.split_once(':') {
            Some((key, value)) if value.starts_with('>') => (key, Rule::Gt(number(&value[1..]))),
            Some((key, value)) if value.starts_with('<') => (key, Rule::Lt(number(&value[1..]))),
            Some((key, values)) => (key, Rule::In(values.split(',').map(str::to_owned).collect())),
            None if text.starts_with('!') => (&text[1..], Rule::DoesNotExist),
            None => (text, Rule::Exists),
        };
        Requirement { key: key.to_owned(), rule }
    };
    Term(text.split('&').map(requirement).collect())
}

/// A job: its specification, what else is said of it, and its places.
pub struct JobLine {
    pub name: String,
    pub spec: JobSpec,
    pub said: BTreeMap<String, String>,
    pub places: Vec<String>,
}

/// `NAME QUEUE SHAPE [option ...] [on PLACE ...]`.
pub fn job(line: &Line) -> JobLine {
    let [name, queue, shape, rest @ ..] = line.as_slice() else { panic!("NAME QUEUE SHAPE ...: {line:?}") };
    let (options, places) = match rest.iter().position(|word| word == "on") {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    let mut spec = JobSpec { groups: groups(shape), ..JobSpec::workers(queue.as_str(), 1, 1, Ask::default()) };
    let mut said = BTreeMap::new();
    for (key, value) in options.iter().map(|word| pair(word)) {
        let each = |spec: &mut JobSpec, change: &dyn Fn(&mut Ask)| {
            spec.groups.iter_mut().for_each(|group| change(&mut group.ask));
        };
        match key {
            "prio" => spec.priority = number(value),
            "pinned" => spec.preemptible = false,
            "cores" => each(&mut spec, &|ask| ask.cpu_milli = number::<u64>(value) * 1_000),
            "gib" => each(&mut spec, &|ask| ask.memory_mib = number::<u64>(value) * 1_024),
            "class" => each(&mut spec, &|ask| ask.classes = classes(value)),
            "tolerates" => each(&mut spec, &|ask| ask.tolerations = vec![Toleration::of(value)]),
            "spread" => spec.spread = Some(spread(value)),
            "restart" => spec.restart_ms = time(value),
            "least" => spec.min_runtime_ms = time(value),
            "disruptions" => spec.max_disruptions_per_hour = number(value),
            "estimate" => spec.expected_ms = Some(time(value)),
            "from" => spec.namespace = value.into(),
            "must" => each(&mut spec, &|ask| ask.affinity.required.push(term(value))),
            "rather" => {
                let (weight, wish) = value.split_once(':').unwrap_or_else(|| panic!("rather=WEIGHT:KEY:...: {value}"));
                let wish = Preference { weight: number(weight), term: term(wish) };
                each(&mut spec, &|ask| ask.affinity.preferred.push(wish.clone()));
            }
            "since" | "checkpoint" => drop(said.insert(key.to_owned(), value.to_owned())),
            label => each(&mut spec, &|ask| drop(ask.selector.insert(label.to_owned(), vec![value.to_owned()]))),
        }
    }
    JobLine { name: name.clone(), spec, said, places: places.to_vec() }
}
