//! Cohorts that are above themselves.

use std::collections::{BTreeMap, BTreeSet};

/// Every circle once, from the first of its names in the alphabet on, each name followed by its parent's.
pub fn cycles<'a>(parents: &BTreeMap<&'a str, Option<&'a str>>) -> Vec<Vec<&'a str>> {
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for start in parents.keys() {
        let mut path = Vec::new();
        let mut place = BTreeMap::new();
        let mut at = Some(*start);
        while let Some(name) = at.filter(|name| !done.contains(name) && !place.contains_key(name)) {
            place.insert(name, path.len());
            path.push(name);
            at = parents.get(name).copied().flatten();
        }
        if let Some(first) = at.and_then(|name| place.get(name)) {
            found.push(path.split_off(*first));
            done.extend(found.last().into_iter().flatten());
        }
        done.extend(path);
    }
    for circle in &mut found {
        let least = circle.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(at, _)| at);
        circle.rotate_left(least);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found_once_and_trees_have_none() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a [&'a str]]);
        let cases: [Case<'_>; 5] = [
            (&[("a", ""), ("b", "a"), ("c", "a")], &[]),
            (&[("a", "a")], &[&["a"]]),
            (&[("b", "c"), ("c", "b"), ("a", "c")], &[&["b", "c"]]),
            (&[("a", "c"), ("b", "a"), ("c", "b"), ("d", "d")], &[&["a", "c", "b"], &["d"]]),
            (&[("a", "nowhere")], &[]),
        ];
        for (pairs, expected) in cases {
            let parents = pairs.iter().map(|(name, parent)| (*name, Some(*parent).filter(|parent| !parent.is_empty()))).collect();
            assert_eq!(cycles(&parents), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_long_chain_is_walked_once() {
        let names: Vec<String> = (0..20_000).map(|number| format!("{number:05}")).collect();
        let parents =
            names.iter().zip(names.iter().skip(1)).map(|(name, parent)| (name.as_str(), Some(parent.as_str()))).collect();
        assert_eq!(cycles(&parents), Vec::<Vec<&str>>::new());
    }
}
