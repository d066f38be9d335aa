//! Names of Queues. In Kueue a Cohort and a ClusterQueue may have the same name, and names have dots and up to 253 characters;
//! Queues share one set of DNS labels. A ClusterQueue keeps its name before a Cohort does, since pods name it.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{MAX_NAME, is_label};

/// The longest name of a Kubernetes object.
const MAX_OBJECT_NAME: usize = 253;

/// Each name in Kueue with the name of its Queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub cluster_queues: BTreeMap<String, String>,
    pub cohorts: BTreeMap<String, String>,
}

/// Distinct labels, whatever the order in which objects were read: those that may stay as they are first.
pub fn names<'a>(cluster_queues: impl Iterator<Item = &'a str>, cohorts: impl Iterator<Item = &'a str>) -> Names {
    let mut taken = BTreeSet::new();
    let cluster_queues = give(cluster_queues, "", &mut taken);
    Names { cluster_queues, cohorts: give(cohorts, "-cohort", &mut taken) }
}

fn give<'a>(objects: impl Iterator<Item = &'a str>, suffix: &str, taken: &mut BTreeSet<String>) -> BTreeMap<String, String> {
    let (stay, change): (Vec<&str>, Vec<&str>) = objects.partition(|name| is_label(name) && !taken.contains(*name));
    taken.extend(stay.iter().map(|name| (*name).to_owned()));
    let mut given: BTreeMap<String, String> = stay.into_iter().map(|name| (name.to_owned(), name.to_owned())).collect();
    // Where to go on counting, so that many names with one beginning cost no more than few.
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for name in change {
        let label = name.replace('.', "-");
        let suffix = if taken.contains(&label) { suffix } else { "" };
        let count = counted.entry(with_end(&label, suffix)).or_default();
        let free = loop {
            *count += 1;
            let end = if *count == 1 { suffix.to_owned() } else { format!("{suffix}-{count}") };
            let free = with_end(&label, &end);
            if taken.insert(free.clone()) {
                break free;
            }
        };
        given.insert(name.to_owned(), free);
    }
    given
}

/// A label that ends so and is short enough.
fn with_end(label: &str, end: &str) -> String {
    let short: String = label.chars().take(MAX_NAME.saturating_sub(end.len())).collect();
    format!("{}{end}", short.trim_end_matches('-'))
}

/// The Queue that a ClusterQueue becomes, but for those whose name is another's already once its dots are gone.
pub fn queue_of(cluster_queue: &str) -> String {
    if is_label(cluster_queue) { cluster_queue.to_owned() } else { with_end(&cluster_queue.replace('.', "-"), "") }
}

/// What Kubernetes takes as a name: a DNS subdomain.
pub fn is_object_name(name: &str) -> bool {
    let part = |part: &str| {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(good) && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= MAX_OBJECT_NAME && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(cluster_queues: &[&str], cohorts: &[&str]) -> Vec<(String, String)> {
        let names = names(cluster_queues.iter().copied(), cohorts.iter().copied());
        names.cluster_queues.into_iter().chain(names.cohorts).collect()
    }

    #[test]
    fn alone_a_cluster_queue_becomes_the_queue_that_it_becomes_among_others() {
        let long = "a.".repeat(70);
        for name in ["a", "a.b", &long] {
            assert_eq!(given(&[name], &[]), [(name.to_owned(), queue_of(name))]);
        }
    }

    #[test]
    fn names_become_distinct_labels_and_those_of_cluster_queues_stay() {
        let long = "a".repeat(70);
        let cases: [(&[&str], &[&str], &[&str]); 7] = [
            (&["a"], &["b"], &["a", "b"]),
            (&["a"], &["a"], &["a", "a-cohort"]),
            (&["a", "a-cohort"], &["a"], &["a", "a-cohort", "a-cohort-2"]),
            (&["a"], &["a", "a-cohort"], &["a", "a-cohort-2", "a-cohort"]),
            (&["a.b", "a-b"], &[], &["a-b", "a-b-2"]),
            (&[], &["x.y", "x-y"], &["x-y", "x-y-cohort"]),
            (&[&long], &[], &[&long[..63]]),
        ];
        for (cluster_queues, cohorts, expected) in cases {
            let mut found: Vec<String> = given(cluster_queues, cohorts).into_iter().map(|(_, label)| label).collect();
            found.sort();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{cluster_queues:?} {cohorts:?}");
            assert!(found.iter().all(|label| is_label(label)), "{found:?}");
        }
    }

    #[test]
    fn many_long_names_stay_apart() {
        let all: Vec<String> = (0..300).map(|number| format!("{}.{number}", "a".repeat(63))).collect();
        let given = given(&all.iter().map(String::as_str).collect::<Vec<_>>(), &["a"]);
        let labels: BTreeSet<&String> = given.iter().map(|(_, label)| label).collect();
        assert_eq!(labels.len(), 301);
        assert!(labels.iter().all(|label| is_label(label)), "{labels:?}");
    }

    #[test]
    fn object_names_are_subdomains() {
        for name in ["a", "a.b", "a-1.b-2"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", ".", "a.", "-a", "a..b", "A", "ü", "a_b", "a\nb", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
