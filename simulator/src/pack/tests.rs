use std::time::Duration;

use super::openb::tests_support::lists;
use super::*;

const ALL: [PolicyName; 7] = [
    PolicyName::Fgd,
    PolicyName::Bestfit,
    PolicyName::Random,
    PolicyName::Dotprod,
    PolicyName::Clustering,
    PolicyName::Packing,
    PolicyName::Tidegate,
];

fn packed(pods: &str, policy: PolicyName, arrive: u32) -> Report {
    let experiment = Experiment { policy, mix: MixSource::Seen, arrive, seeds: &[1, 2, 3] };
    pack(&lists(pods), &experiment, || Duration::ZERO).unwrap()
}

/// Of 10 GPUs on two nodes.
fn allocated(pods: &str, policy: PolicyName) -> f64 {
    packed(pods, policy, 200).allocation_percent_mean
}

#[test]
fn every_rule_fills_the_cluster_with_pods_that_fit_anywhere() {
    for policy in ALL {
        assert!((allocated("a,1000,1,1,1000,\nb,1000,1,1,500,\n", policy) - 100.0).abs() < 1.0, "{policy:?}");
    }
}

#[test]
fn no_rule_puts_a_pod_where_class_cpu_or_memory_do_not_suffice() {
    for policy in ALL {
        // 2 of the 10 GPUs are P100; 64 CPUs are enough for 64000 / 40000 = 1 pod; 1000 MiB on the T4 node are too few.
        assert!((allocated("a,1000,1,1,1000,P100\n", policy) - 20.0).abs() < 1e-9, "{policy:?} by class");
        assert!((allocated("a,40000,1,1,1000,P100\n", policy) - 10.0).abs() < 1e-9, "{policy:?} by CPU");
        assert!((allocated("a,1000,1001,1,1000,T4\n", policy) - 0.0).abs() < 1e-9, "{policy:?} by memory");
        assert!((allocated("a,1000,1,1,501,\n", policy) - 50.1).abs() < 1e-9, "{policy:?}: two do not share a GPU");
    }
}

#[test]
fn pods_that_do_not_fit_are_dropped_and_count_as_arrived() {
    let report = packed("a,1000,1,8,1000,\n", PolicyName::Tidegate, 160);
    assert_eq!(report.allocation_percent_by_arrived.into_iter().collect::<Vec<_>>(), [(80, 80.0), (160, 80.0)]);
    assert!((report.unallocated_gpus_mean - 2.0).abs() < 1e-9);
}

#[test]
fn the_same_seeds_give_the_same_figures() {
    let pods = "a,3000,1,1,810,\nb,9000,1,1,1000,\nc,4000,1,1,470,T4\nd,8000,1,0,0,\ne,2000,1,2,1000,\n";
    for policy in ALL {
        let figures = || serde_json::to_string(&packed(pods, policy, 130)).unwrap();
        assert_eq!(figures(), figures(), "{policy:?}");
    }
}

#[test]
fn lists_without_gpus_are_refused() {
    let experiment = Experiment { policy: PolicyName::Fgd, mix: MixSource::Seen, arrive: 130, seeds: &[1] };
    let no_pods = pack(&lists("a,1000,1,0,0,\n"), &experiment, || Duration::ZERO).unwrap_err();
    assert!(no_pods.to_string().contains("--pods"), "{no_pods}");
    let no_nodes = pack(&Lists::default(), &experiment, || Duration::ZERO).unwrap_err();
    assert!(no_nodes.to_string().contains("--nodes"), "{no_nodes}");
}

#[test]
fn rows_left_out_are_told_in_the_report() {
    let (nodes, pods) =
        ("sn,cpu_milli,memory_mib,gpu,model\nn,1000,1,1,T4\n", "cpu_milli,memory_mib,num_gpu,gpu_milli\n1,1,1,1000\n1,1,1,x\n");
    let (nodes, pods) = (openb::tests_support::file(nodes), openb::tests_support::file(pods));
    let args = Args {
        nodes: nodes.path().to_owned(),
        pods: pods.path().to_owned(),
        format: Format::Openb,
        policy: PolicyName::Tidegate,
        mix: MixSource::Seen,
        arrive: 130,
        seeds: "1".parse().unwrap(),
        skip_bad: true,
        json: false,
    };
    let text = run(&args, || Duration::ZERO).unwrap().to_string();
    assert!(text.contains("left out 1 rows") && text.contains("line 3: gpu_milli is \"x\""), "{text}");
    assert!(run(&Args { skip_bad: false, ..args }, || Duration::ZERO).is_err());
}
