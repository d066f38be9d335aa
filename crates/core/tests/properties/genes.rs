//! What random systems are made of: small plain numbers that shrink well; `setup` makes specifications of them.

use proptest::prelude::*;

/// A node. Its devices are all of one class.
#[derive(Clone, Debug)]
pub struct NodeGene {
    pub devices: u32,
    pub class: u8,
    pub mig: bool,
    /// Two `NVLink` islands instead of one.
    pub split: bool,
    /// Block and rack; absent: outside of the topology.
    pub place: Option<(u8, u8)>,
    pub tainted: bool,
    /// Cores, with as many GiB times four; absent: boundless.
    pub cores: Option<u64>,
    /// A label that selectors look for.
    pub zone: u8,
}

#[derive(Clone, Copy, Debug)]
pub struct QuotaGene {
    pub nominal: u32,
    pub borrow: Option<u32>,
    pub lend: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct QueueGene {
    /// An earlier queue; anything else: below the pool.
    pub parent: usize,
    pub gpu: QuotaGene,
    pub class: Option<(u8, QuotaGene)>,
    pub cpu: Option<QuotaGene>,
    pub weight: u32,
    pub priority: i32,
    pub discipline: u8,
    /// Which namespaces may submit: any; those of a team; those not of another; those that say they are tested.
    pub selector: u8,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Debug)]
pub struct PolicyGene {
    pub topology: bool,
    pub history_percent: u32,
    pub max_reservations: u32,
    pub evictions: u32,
    pub consolidate: bool,
    /// Responsive queues are put in order every few seconds, not practically never.
    pub ranks: bool,
    pub keep_surplus: bool,
    pub sigmas_percent: u32,
    pub fair_reclaim: bool,
}

#[derive(Clone, Debug)]
pub struct System {
    pub nodes: Vec<NodeGene>,
    pub queues: Vec<QueueGene>,
    pub policy: PolicyGene,
    pub models: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct SpreadGene {
    pub level: u8,
    pub required: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum AmountGene {
    None,
    Whole(u32),
    Mib(u64),
    Milli(u16),
    Mig(u8),
}

#[derive(Clone, Debug)]
pub struct GroupGene {
    pub amount: AmountGene,
    pub min: u32,
    pub extra: u32,
    /// Any, the first, the second, both with either the faster.
    pub classes: u8,
    pub cores: u64,
    pub gib: u64,
    pub zone: Option<u8>,
    /// The zone and rack that it must be in, or would rather be in, by expressions.
    pub affinity: Option<(u8, u8)>,
    pub tolerates: bool,
    pub spread: Option<SpreadGene>,
}

#[derive(Clone, Debug)]
pub struct JobGene {
    pub queue: usize,
    pub namespace: u8,
    pub priority: i32,
    pub groups: Vec<GroupGene>,
    pub spread: Option<SpreadGene>,
    pub preemptible: bool,
    pub min_runtime_s: u64,
    pub max_disruptions: Option<u32>,
    pub expected_s: Option<u64>,
    pub restart_ms: u64,
    /// None, one, one with choices.
    pub curve: u8,
}

/// What happens in the world.
#[derive(Clone, Debug)]
pub enum Op {
    Advance(u64),
    Demand {
        model: usize,
        rate: u64,
        held: u64,
        burst_milli: Option<u64>,
        late_ppm: Option<u64>,
    },
    Submit(JobGene),
    /// The object of a job is written anew.
    Respecify {
        job: usize,
        gene: JobGene,
    },
    /// Only its size is.
    Resize {
        job: usize,
        min: u32,
        extra: u32,
    },
    Progress(usize),
    /// Everything that runs has just made a checkpoint.
    ProgressAll,
    Exit {
        job: usize,
        succeeded: bool,
    },
    /// A node would not take one of its workers in.
    Refuse(usize),
    /// Others have taken so much of its node that what it has there must go.
    Overcommit(usize),
    Pause {
        job: usize,
        paused: bool,
    },
    Cancel(usize),
    Remove(usize),
    Drain {
        device: usize,
        drained: bool,
    },
    Lose(usize),
    /// What runs there dies with it, or is found to have lived on.
    LoseNode {
        node: usize,
        dies: bool,
    },
    SetNode {
        node: usize,
        gene: NodeGene,
    },
    SetQueue {
        queue: usize,
        gene: QueueGene,
    },
    RemoveQueue(usize),
    /// The namespace gets these labels, or goes.
    SetNamespace {
        namespace: u8,
        labels: Option<u8>,
    },
    SetPolicy(PolicyGene),
    ReplicaDies(usize),
    PauseModel {
        model: usize,
        paused: bool,
    },
    Upgrade(usize),
    CarryOut(usize),
    /// Everything that may be carried out now.
    CarryOutAll,
    FailStart(usize),
    /// The process dies, perhaps after it has carried an action out and before it could say so.
    Crash {
        silent: Option<usize>,
    },
}

fn some<T: std::fmt::Debug + Clone>(percent: f64, of: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(percent, of)
}

fn often(percent: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(percent)
}

fn node() -> impl Strategy<Value = NodeGene> {
    let devices = prop_oneof![1 => Just(0_u32), 8 => 1_u32..5];
    let place = some(0.8, (0_u8..2, 0_u8..2));
    let cores = some(0.5, 1_u64..9);
    (devices, 0_u8..2, often(0.3), any::<bool>(), place, often(0.15), cores, 0_u8..2).prop_map(
        |(devices, class, mig, split, place, tainted, cores, zone)| NodeGene {
            devices,
            class,
            mig,
            split,
            place,
            tainted,
            cores,
            zone,
        },
    )
}

fn quota() -> impl Strategy<Value = QuotaGene> {
    (0_u32..6, some(0.3, 0_u32..4), some(0.3, 0_u32..4)).prop_map(|(nominal, borrow, lend)| QuotaGene { nominal, borrow, lend })
}

fn queue() -> impl Strategy<Value = QueueGene> {
    let weight = prop::sample::select(vec![500_u32, 1_000, 3_000]);
    let selector = prop_oneof![5 => Just(0_u8), 1 => 1_u8..4];
    let rest = (weight, prop_oneof![2 => Just(0_i32), 1 => -1_i32..2], selector);
    (0_usize..6, quota(), some(0.25, (0_u8..2, quota())), some(0.15, quota()), rest, 0_u8..3).prop_map(
        |(parent, gpu, class, cpu, (weight, priority, selector), discipline)| QueueGene {
            parent,
            gpu,
            class,
            cpu,
            weight,
            priority,
            discipline,
            selector,
        },
    )
}

fn policy() -> impl Strategy<Value = PolicyGene> {
    let evictions = prop_oneof![4 => Just(30_u32), 1 => 0_u32..3];
    let rest = (any::<bool>(), any::<bool>());
    let serving = (often(0.7), prop::sample::select(vec![0_u32, 150]), often(0.4));
    (often(0.7), prop::sample::select(vec![0_u32, 0, 50, 100]), 0_u32..5, evictions, rest, serving).prop_map(
        |(
            topology,
            history_percent,
            max_reservations,
            evictions,
            (consolidate, ranks),
            (keep_surplus, sigmas_percent, fair_reclaim),
        )| {
            PolicyGene {
                topology,
                history_percent,
                max_reservations,
                evictions,
                consolidate,
                ranks,
                keep_surplus,
                sigmas_percent,
                fair_reclaim,
            }
        },
    )
}

fn demand() -> impl Strategy<Value = Op> {
    let rate = prop_oneof![2 => 0_u64..600, 1 => 0_u64..40];
    let late = some(0.4, prop::sample::select(vec![0_u64, 700, 50_000]));
    (0_usize..3, rate, 0_u64..4, some(0.4, 0_u64..30_000), late)
        .prop_map(|(model, rate, held, burst_milli, late_ppm)| Op::Demand { model, rate, held, burst_milli, late_ppm })
}

/// A cluster, queues and a policy.
pub fn system() -> impl Strategy<Value = System> {
    let nodes = prop::collection::vec(node(), 1..5);
    let queues = prop::collection::vec(queue(), 1..6);
    (nodes, queues, policy(), 0_usize..4).prop_map(|(nodes, queues, policy, models)| System { nodes, queues, policy, models })
}

fn spread() -> impl Strategy<Value = SpreadGene> {
    (0_u8..5, any::<bool>()).prop_map(|(level, required)| SpreadGene { level, required })
}

fn amount() -> impl Strategy<Value = AmountGene> {
    prop_oneof![
        1 => Just(AmountGene::None),
        6 => (1_u32..5).prop_map(AmountGene::Whole),
        2 => prop::sample::select(vec![10_000_u64, 30_000, 50_000]).prop_map(AmountGene::Mib),
        2 => prop::sample::select(vec![100_u16, 250, 500, 700]).prop_map(AmountGene::Milli),
        2 => (0_u8..6).prop_map(AmountGene::Mig),
    ]
}

fn group() -> impl Strategy<Value = GroupGene> {
    let size = (prop_oneof![4 => Just(1_u32), 3 => 2_u32..5], prop_oneof![2 => Just(0_u32), 1 => 1_u32..4]);
    let beside = (prop_oneof![2 => Just(0_u64), 1 => 1_u64..4], prop_oneof![2 => Just(0_u64), 1 => 1_u64..9]);
    let where_to = (some(0.15, 0_u8..2), some(0.15, (0_u8..6, 0_u8..3)), often(0.3), some(0.2, spread()));
    let classes = prop_oneof![3 => Just(0_u8), 2 => 1_u8..5];
    (amount(), size, classes, beside, where_to).prop_map(
        |(amount, (min, extra), classes, (cores, gib), (zone, affinity, tolerates, spread))| GroupGene {
            amount,
            min,
            extra,
            classes,
            cores,
            gib,
            zone,
            affinity,
            tolerates,
            spread,
        },
    )
}

/// A job.
pub fn job() -> impl Strategy<Value = JobGene> {
    let groups = prop_oneof![4 => prop::collection::vec(group(), 1), 1 => prop::collection::vec(group(), 2..4)];
    let limits = (prop_oneof![3 => Just(0_u64), 1 => prop::sample::select(vec![10_u64, 60])], some(0.2, 0_u32..3));
    let rest = (some(0.6, 1_u64..900), prop::sample::select(vec![0_u64, 2_000]), 0_u8..3);
    let from = (0_usize..6, 0_u8..3);
    (from, -2_i32..3, groups, some(0.2, spread()), often(0.8), limits, rest).prop_map(
        |(
            (queue, namespace),
            priority,
            groups,
            spread,
            preemptible,
            (min_runtime_s, max_disruptions),
            (expected_s, restart_ms, curve),
        )| {
            JobGene {
                queue,
                namespace,
                priority,
                groups,
                spread,
                preemptible,
                min_runtime_s,
                max_disruptions,
                expected_s,
                restart_ms,
                curve,
            }
        },
    )
}

/// Something that happens.
pub fn op() -> impl Strategy<Value = Op> {
    let at = any::<usize>;
    prop_oneof![
        8 => (1_u64..20_000).prop_map(Op::Advance),
        1 => (20_000_u64..4_000_000).prop_map(Op::Advance),
        5 => demand(),
        14 => job().prop_map(Op::Submit),
        2 => (at(), job()).prop_map(|(job, gene)| Op::Respecify { job, gene }),
        2 => (at(), 1_u32..4, 0_u32..3).prop_map(|(job, min, extra)| Op::Resize { job, min, extra }),
        3 => at().prop_map(Op::Progress),
        5 => (at(), often(0.7)).prop_map(|(job, succeeded)| Op::Exit { job, succeeded }),
        1 => at().prop_map(Op::Refuse),
        1 => at().prop_map(Op::Overcommit),
        1 => (at(), any::<bool>()).prop_map(|(job, paused)| Op::Pause { job, paused }),
        1 => at().prop_map(Op::Cancel),
        1 => at().prop_map(Op::Remove),
        2 => (at(), any::<bool>()).prop_map(|(device, drained)| Op::Drain { device, drained }),
        1 => at().prop_map(Op::Lose),
        1 => (at(), any::<bool>()).prop_map(|(node, dies)| Op::LoseNode { node, dies }),
        2 => (at(), node()).prop_map(|(node, gene)| Op::SetNode { node, gene }),
        2 => (at(), queue()).prop_map(|(queue, gene)| Op::SetQueue { queue, gene }),
        1 => at().prop_map(Op::RemoveQueue),
        1 => (0_u8..3, some(0.8, 0_u8..4)).prop_map(|(namespace, labels)| Op::SetNamespace { namespace, labels }),
        1 => policy().prop_map(Op::SetPolicy),
        1 => at().prop_map(Op::ReplicaDies),
        1 => (0_usize..3, any::<bool>()).prop_map(|(model, paused)| Op::PauseModel { model, paused }),
        1 => (0_usize..3).prop_map(Op::Upgrade),
        10 => at().prop_map(Op::CarryOut),
        6 => Just(Op::CarryOutAll),
        1 => at().prop_map(Op::FailStart),
        2 => some(0.5, at()).prop_map(|silent| Op::Crash { silent }),
    ]
}

/// A system in which jobs share: one responsive queue, put in order often. Reclaim and reservations are left to the others.
pub fn sharing_system() -> impl Strategy<Value = System> {
    let share = |queue: QueueGene| QueueGene { discipline: 2, class: None, cpu: None, selector: 0, ..queue };
    (prop::collection::vec(node(), 1..4), queue().prop_map(share), policy()).prop_map(|(nodes, queue, policy)| {
        let policy = PolicyGene { ranks: true, max_reservations: 0, ..policy };
        System { nodes, queues: vec![queue], policy, models: 0 }
    })
}

/// A job that shares, if it may be stopped.
fn sharer() -> impl Strategy<Value = JobGene> {
    let priority = prop_oneof![3 => Just(0_i32), 1 => Just(1)];
    let size = (1_u32..3, 1_u32..3, 0_u32..6);
    (job(), size, priority, often(0.95)).prop_map(|(gene, (devices, min, extra), priority, preemptible)| {
        let plain = GroupGene {
            amount: AmountGene::Whole(devices),
            min,
            extra,
            classes: 0,
            cores: 0,
            gib: 0,
            zone: None,
            affinity: None,
            tolerates: true,
            spread: None,
        };
        JobGene { groups: vec![plain], spread: None, priority, preemptible, ..gene }
    })
}

/// Something that happens to jobs that share.
pub fn sharing_op() -> impl Strategy<Value = Op> {
    let at = any::<usize>;
    prop_oneof![
        8 => sharer().prop_map(Op::Submit),
        8 => (1_000_u64..10_000).prop_map(Op::Advance),
        8 => Just(Op::ProgressAll),
        8 => Just(Op::CarryOutAll),
        4 => at().prop_map(Op::CarryOut),
        4 => (at(), often(0.2)).prop_map(|(job, succeeded)| Op::Exit { job, succeeded }),
        2 => (at(), sharer()).prop_map(|(job, gene)| Op::Respecify { job, gene }),
        2 => (at(), 1_u32..4, 0_u32..3).prop_map(|(job, min, extra)| Op::Resize { job, min, extra }),
        1 => (at(), any::<bool>()).prop_map(|(job, paused)| Op::Pause { job, paused }),
        1 => at().prop_map(Op::Cancel),
        1 => at().prop_map(Op::Remove),
        1 => (at(), any::<bool>()).prop_map(|(device, drained)| Op::Drain { device, drained }),
        1 => (at(), any::<bool>()).prop_map(|(node, dies)| Op::LoseNode { node, dies }),
        1 => at().prop_map(Op::FailStart),
        1 => some(0.5, at()).prop_map(|silent| Op::Crash { silent }),
    ]
}
