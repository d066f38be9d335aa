//! Names on one box are one for all namespaces, as they are part of folders and addresses: what is there in one namespace is
//! neither replaced nor moved by what comes in another.

use std::collections::BTreeMap;

use tidegate_api::manifest::Problem;

use super::problem;
use crate::manifests::Sourced;
use crate::objects::Objects;

/// Objects that are being applied in another namespace than one of their kind and name.
pub fn check(known: &Objects, new: &[Sourced]) -> Vec<Problem> {
    let known = known.iter().map(|stored| &stored.object);
    let mut homes: BTreeMap<(&str, &str), &str> =
        known.map(|object| ((object.kind(), object.name()), object.namespace())).collect();
    let elsewhere = |sourced: &Sourced, home: &str| {
        let (kind, name, namespace) = (sourced.object.kind(), sourced.object.name(), sourced.object.namespace());
        let what = format!("is not `{home}`, where {kind}/{name} is: one box has one of each name");
        (namespace != home)
            .then(|| problem(sourced, "metadata.namespace", namespace, &what, "choose another name, or delete that first"))
    };
    let mut problems = Vec::new();
    for sourced in new {
        let object = &sourced.object;
        let home = *homes.entry((object.kind(), object.name())).or_insert(object.namespace());
        problems.extend(elsewhere(sourced, home));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifests;

    fn job(name: &str, namespace: &str) -> Vec<Sourced> {
        let text = format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: TrainingJob\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{queue: q, template: {{command: [a]}}}}\n"
        );
        manifests::parse(&text, Path::new("/new.yaml")).unwrap()
    }

    #[test]
    fn a_name_that_is_taken_in_another_namespace_is_refused_with_where_it_is() {
        let mut objects = Objects::default();
        objects.put(&job("night", "team-a")[0], 0).unwrap();
        assert_eq!(check(&objects, &job("night", "team-a")), []);
        assert_eq!(check(&objects, &job("day", "team-b")), []);
        let said: Vec<String> = check(&objects, &job("night", "team-b")).iter().map(ToString::to_string).collect();
        let expected = "/new.yaml: TrainingJob/night: metadata.namespace (team-b) is not `team-a`, where TrainingJob/night is: \
                        one box has one of each name; choose another name, or delete that first";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn one_name_in_two_namespaces_of_the_same_files_is_refused_too() {
        let both = [job("night", "team-a"), job("night", "team-b")].concat();
        assert_eq!(check(&Objects::default(), &both).len(), 1);
    }
}
