//! What annotations say to us. Their text is anybody's, in any language and up to 256 KiB: it is read within bounds, and what is told of
//! it is cut.

use tidegate_api::labels;
use tidegate_core::ask::ClassWish;
use tidegate_core::names::Class;
use tidegate_core::state::Spread;

/// As many classes as an object of ours may name, each as long as a label's value.
const MOST_CLASSES: usize = 32;
const MAX_CLASS: usize = 63;
/// A label's key with its prefix.
const MAX_LEVEL: usize = 317;
/// Characters of a text that are shown of it.
const SHOWN: usize = 64;

/// The beginning of a text, for sentences about it.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// What an annotation of ours begins with.
const PREFIX: &str = "tidegate.dev/";
/// Those that people write, and those that Tidegate writes itself.
const KNOWN: [&str; 14] = [
    labels::GANG_SIZE,
    labels::REQUIRED_TOPOLOGY,
    labels::PREFERRED_TOPOLOGY,
    labels::GPU_CLASSES,
    labels::PREEMPTIBLE,
    labels::EXPECTED_SECONDS,
    labels::ATTEMPT,
    labels::RANK,
    labels::GROUP,
    labels::WORLD_SIZE,
    labels::REPLICA,
    labels::GENERATION,
    labels::MADE_FROM,
    labels::SEAT_OF,
];

/// An annotation that looks like ours and is none: whoever wrote it means something by it.
pub(super) fn unknown<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<String> {
    let name = names.find(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str()))?;
    let remedy = if [labels::QUEUE, labels::GANG].contains(&name.as_str()) {
        "which is read as a label alone: make it one"
    } else {
        "which is none of Tidegate's: is it written as in docs/operator.md?"
    };
    Some(format!("has the annotation {}, {remedy}", shown(name)))
}

pub(super) fn switch(name: &str, text: Option<&str>) -> Result<bool, String> {
    match text {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("annotation {name} is `{}`: give true or false", shown(other))),
    }
}

/// In milliseconds.
pub(super) fn seconds(name: &str, text: Option<&str>) -> Result<Option<u64>, String> {
    let Some(text) = text else { return Ok(None) };
    let seconds: Option<u32> = text.trim().parse().ok().filter(|seconds| *seconds > 0);
    let seconds = seconds.ok_or_else(|| format!("annotation {name} is `{}`: give whole seconds, at least 1", shown(text)))?;
    Ok(Some(u64::from(seconds) * 1000))
}

/// Classes that will do; none: any.
pub(super) fn classes(text: Option<&str>) -> Result<Vec<ClassWish>, String> {
    let names = text.unwrap_or_default().split(',').map(str::trim).filter(|class| !class.is_empty());
    let names: Vec<&str> = names.take(MOST_CLASSES + 1).collect();
    if names.len() > MOST_CLASSES {
        return Err(format!("annotation {} names too many classes: give at most {MOST_CLASSES}", labels::GPU_CLASSES));
    }
    if let Some(long) = names.iter().find(|name| name.chars().nth(MAX_CLASS).is_some()) {
        let (name, long) = (labels::GPU_CLASSES, shown(long));
        return Err(format!("annotation {name} names the class `{long}`: give names of at most {MAX_CLASS} characters"));
    }
    Ok(names.into_iter().map(|name| ClassWish::from(Class::from(name))).collect())
}

/// How close together.
pub(super) fn spread(required: Option<&str>, preferred: Option<&str>) -> Result<Option<Spread>, String> {
    let (name, level) = match (required, preferred) {
        (Some(level), _) => (labels::REQUIRED_TOPOLOGY, level),
        (None, Some(level)) => (labels::PREFERRED_TOPOLOGY, level),
        (None, None) => return Ok(None),
    };
    if level.is_empty() || level.len() > MAX_LEVEL {
        return Err(format!("annotation {name} is `{}`: give node, island or the key of a label", shown(level)));
    }
    Ok(Some(Spread { level: level.to_owned(), required: required.is_some() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_its_characters() {
        assert_eq!(shown("ja"), "ja");
        let long = "漢字é".repeat(1_000);
        assert_eq!((shown(&long).chars().count(), shown(&long).ends_with("...")), (SHOWN + 3, true));
        let told = switch("preemptible", Some(&long)).unwrap_err();
        assert!(told.len() < 512 && told.contains("give true or false"), "{told}");
    }

    #[test]
    fn no_more_classes_are_read_than_a_job_may_name() {
        assert_eq!(classes(None), Ok(Vec::new()));
        assert_eq!(classes(Some(" H100 ,, Ä100")).unwrap().len(), 2);
        assert!(classes(Some(&"a,".repeat(33))).unwrap_err().contains("at most 32"));
        assert!(classes(Some(&"é".repeat(64))).unwrap_err().contains("at most 63 characters"));
    }

    #[test]
    fn a_level_is_the_key_of_a_label() {
        assert_eq!(spread(None, None), Ok(None));
        assert_eq!(spread(Some("rack"), Some("node")), Ok(Some(Spread { level: "rack".to_owned(), required: true })));
        assert!(spread(None, Some("")).unwrap_err().contains(labels::PREFERRED_TOPOLOGY));
        assert!(spread(Some(&"r".repeat(400)), None).unwrap_err().contains("key of a label"));
    }

    #[test]
    fn numbers_of_other_scripts_are_no_numbers() {
        assert!(seconds("expected-seconds", Some("６０")).unwrap_err().contains("`６０`"));
    }
}
