//! Devices that are made of the same GPU.

use super::*;

/// GPUs of a node, each as a whole, in two halves and in seven small ones.
fn rig(gpus: usize) -> Rig {
    let mut rig = super::rig(&[("n1", 0)]);
    publish(&mut rig, gpus);
    rig
}

fn publish(rig: &mut Rig, gpus: usize) {
    rig.device(slice("n1", 0, |slice| {
        let set = |gpu: usize| json!({"name": format!("set-{gpu}"), "counters": {"slices": {"value": "7"}, "memory": {"value": "80Gi"}}});
        let of = |gpu: usize, name: String, kind: &str, profile: &str, slices: u32, memory: &str| {
            let counters = json!({"slices": {"value": slices.to_string()}, "memory": {"value": memory}});
            json!({
                "name": name,
                "attributes": {"type": {"string": kind}, "productName": {"string": "NVIDIA H100"}, "profile": {"string": profile}},
                "capacity": {"memory": {"value": memory}},
                "consumesCounters": [{"counterSet": format!("set-{gpu}"), "counters": counters}],
            })
        };
        let all = |gpu: usize| {
            let whole = of(gpu, format!("gpu-{gpu}"), "gpu", "whole", 7, "80Gi");
            let halves = (0..2).map(move |at| of(gpu, format!("half-{gpu}-{at}"), "mig", "3g.40gb", 3, "40Gi"));
            let small = (0..7).map(move |at| of(gpu, format!("small-{gpu}-{at}"), "mig", "1g.10gb", 1, "10Gi"));
            [whole].into_iter().chain(halves).chain(small).collect::<Vec<_>>()
        };
        slice["spec"]["sharedCounters"] = (0..gpus).map(set).collect();
        slice["spec"]["devices"] = (0..gpus).flat_map(all).collect();
    }));
}

fn wants(profile: &str) -> impl Fn(&mut Value) {
    let expression = format!("device.attributes['gpu.nvidia.com'].profile == '{profile}'");
    move |claim| {
        claim["spec"]["devices"]["requests"][0]["exactly"]["selectors"] = json!([{"cel": {"expression": expression}}]);
    }
}

impl Rig {
    /// Pods that want these, each by a claim of its name.
    fn ask(&mut self, pods: &[(&'static str, &str)]) {
        for (name, profile) in pods {
            self.claim(name, wants(profile));
            self.see(name, uses(name));
        }
    }

    /// Carries out what is to be allocated and bound; which pod has which device.
    fn run_all(&mut self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        loop {
            let writes = self.turn();
            if writes.is_empty() {
                all.sort();
                return all;
            }
            all.extend(self.give_all(writes));
            for write in self.take_writes() {
                let Write::Bind { pod, .. } = &write else { panic!("{write:?}") };
                let claim: &'static str = pod.name().to_owned().leak();
                self.run(vec![write], claim);
            }
        }
    }

    fn takes_no_more_than_there_is(&self, all: &[(String, String)]) {
        let slices: u32 = all
            .iter()
            .map(|(_, device)| {
                if device.contains("gpu") {
                    7
                } else if device.contains("half") {
                    3
                } else {
                    1
                }
            })
            .sum();
        assert!(slices <= 7, "{all:?}");
        let listed: Vec<Listed> = self.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect();
        assert_eq!(self.index.drift(&self.engine, &listed), Vec::<String>::new());
        self.engine.is_consistent().unwrap();
    }
}

#[test]
fn partitions_of_a_gpu_are_given_beside_each_other_and_count_as_parts() {
    let mut rig = rig(1);
    rig.ask(&[("p", "3g.40gb"), ("q", "1g.10gb"), ("r", "1g.10gb")]);
    let all = rig.run_all();
    assert_eq!(all.len(), 3, "{:?}", rig.told());
    rig.takes_no_more_than_there_is(&all);
    assert_eq!(rig.used("a"), 500 + 2 * 125);
}

#[test]
fn the_whole_gpu_and_a_part_of_it_exclude_each_other_whoever_comes_first() {
    let mut rig = rig(1);
    rig.ask(&[("p", "1g.10gb")]);
    let first = rig.run_all();
    assert_eq!(first.len(), 1);
    rig.ask(&[("w", "whole")]);
    assert!(rig.turn().is_empty(), "a part of it is held");
    rig.takes_no_more_than_there_is(&first);
    assert_eq!(rig.told(), ["of 1 devices that suit 1 are not free, because others are held that are made of the same GPUs"]);
    rig.over("p", "n1");
    let writes = rig.turn();
    let [free @ Write::Free { .. }] = writes.as_slice() else { panic!("{writes:?}") };
    rig.done(free, Ok(()));
    rig.claim("p", wants("1g.10gb"));
    let then = rig.run_all();
    assert_eq!(then, [("w".to_owned(), "n1/gpu-0".to_owned())]);
    rig.ask(&[("q", "1g.10gb")]);
    assert!(rig.turn().is_empty(), "the whole of it is held");
}

#[test]
fn of_starts_that_exclude_each_other_the_second_is_decided_again() {
    let mut rig = rig(1);
    rig.ask(&[("w", "whole"), ("p", "3g.40gb"), ("q", "3g.40gb"), ("r", "1g.10gb"), ("s", "1g.10gb")]);
    let all = rig.run_all();
    rig.takes_no_more_than_there_is(&all);
    assert!(!all.is_empty());
    let mut rig = super::partitions::rig(2);
    rig.ask(&[("w", "whole"), ("p", "3g.40gb"), ("q", "1g.10gb")]);
    assert_eq!(rig.run_all().len(), 3, "two GPUs have room for all: {:?}", rig.told());
}

#[test]
fn what_others_have_allocated_of_a_gpu_is_taken_from_all_that_are_made_of_it() {
    let mut rig = rig(1);
    rig.claim("theirs", given("half-0-0", "n1", "other", false));
    rig.claim("more", given("half-0-1", "n1", "other", false));
    rig.ask(&[("w", "whole"), ("p", "1g.10gb"), ("q", "1g.10gb")]);
    assert_eq!(rig.run_all().len(), 0, "80 GiB are taken, though one slice is left");
    rig.claim("more", |_| {});
    let all = rig.run_all();
    assert_eq!(all.iter().map(|(pod, _)| pod.as_str()).collect::<Vec<_>>(), ["p", "q"]);
    rig.takes_no_more_than_there_is(&all);
}

#[test]
fn a_node_may_publish_many_more_than_the_engine_can_tell_apart() {
    let mut rig = rig(8);
    let names: Vec<&'static str> = (0..14).map(|number| &*format!("p{number}").leak()).collect();
    for name in &names {
        rig.ask(&[(name, "1g.10gb")]);
    }
    rig.ask(&[("h", "3g.40gb")]);
    assert_eq!(rig.run_all().len(), 15, "{:?}", rig.told());
    assert!(rig.engine.state().nodes.values().all(|node| node.devices.len() <= 64));
}
