//! Specifications from genes.

use std::collections::BTreeMap;

use tidegate_core::event::Event;
use tidegate_core::labels::{Labels, Requirement, Rule, Selector};
use tidegate_core::mig::Profile;
use tidegate_core::names::{Class, ModelName, Namespace, NodeName, QueueName};
use tidegate_core::policy::Policy;
use tidegate_core::state::{
    Affinity, Amount, Ask, ClassWish, Device, Discipline, Group, JobSpec, ModelMemory, ModelSpec, NodeSpec, Preference, Queue,
    Quota, Resource, SpeedPoint, Spread, Taint, Term, Toleration,
};

use super::genes::{AmountGene, GroupGene, JobGene, NodeGene, PolicyGene, QueueGene, QuotaGene, SpreadGene};

const CLASSES: [(&str, u64); 2] = [("H100-80GB", 80_000), ("A100-40GB", 40_000)];
const GIB: u64 = 1_024;
/// Practically never.
pub const SELDOM_MS: u64 = 40 * 86_400_000;

pub fn node_name(index: usize) -> NodeName {
    NodeName::from(format!("node-{index}"))
}

pub fn queue_name(index: usize) -> QueueName {
    QueueName::from(format!("q{index}"))
}

pub fn model_name(index: usize) -> ModelName {
    ModelName::from(format!("m{index}"))
}

pub fn node_spec(gene: &NodeGene) -> NodeSpec {
    let mut labels = BTreeMap::from([("zone".to_owned(), gene.zone.to_string())]);
    if let Some((block, rack)) = gene.place {
        labels.insert("block".to_owned(), block.to_string());
        labels.insert("rack".to_owned(), rack.to_string());
    }
    let taints = if gene.tainted { vec![Taint::new("special")] } else { Vec::new() };
    let boundless = NodeSpec::default();
    NodeSpec {
        labels,
        taints,
        cpu_milli: gene.cores.map_or(boundless.cpu_milli, |cores| cores * 1_000),
        memory_mib: gene.cores.map_or(boundless.memory_mib, |cores| cores * 4 * GIB),
    }
}

pub fn devices(index: usize, gene: &NodeGene) -> Vec<Device> {
    let (class, memory_mib) = CLASSES[usize::from(gene.class)];
    let device = |place: u32| {
        let device = Device::new(format!("gpu-{index}-{place}"), node_name(index), class, memory_mib);
        Device { mig: gene.mig, island: u8::from(gene.split && place % 2 == 1), ..device }
    };
    (0..gene.devices).map(device).collect()
}

fn quota(gene: QuotaGene, unit: i64) -> Quota {
    let amount = |count: u32| i64::from(count) * unit;
    Quota { nominal: amount(gene.nominal), borrowing_limit: gene.borrow.map(amount), lending_limit: gene.lend.map(amount) }
}

pub fn queue(index: usize, gene: &QueueGene) -> Queue {
    let mut quotas = BTreeMap::from([(Resource::Gpu, quota(gene.gpu, 1_000))]);
    if let Some((class, of)) = gene.class {
        quotas.insert(Resource::Class(Class::from(CLASSES[usize::from(class)].0)), quota(of, 1_000));
    }
    if let Some(cpu) = gene.cpu {
        quotas.insert(Resource::Cpu, quota(cpu, 2_000));
    }
    Queue {
        parent: (gene.parent < index).then(|| queue_name(gene.parent)),
        quotas,
        weight_milli: gene.weight,
        priority: gene.priority,
        discipline: [Discipline::StrictFifo, Discipline::BestEffort, Discipline::Responsive][usize::from(gene.discipline)],
        budget_ms: None,
        namespaces: selector(gene.selector),
    }
}

fn requirement(key: &str, rule: Rule) -> Requirement {
    Requirement { key: key.to_owned(), rule }
}

fn selector(gene: u8) -> Option<Selector> {
    let expression = |key: &str, rule: Rule| Selector { match_expressions: vec![requirement(key, rule)], ..Selector::default() };
    match gene {
        0 => None,
        1 => Some(Selector { match_labels: Labels::from([("team".to_owned(), "0".to_owned())]), ..Selector::default() }),
        2 => Some(expression("team", Rule::NotIn(vec!["1".to_owned()]))),
        _ => Some(expression("tested", Rule::Exists)),
    }
}

pub fn namespace_name(index: u8) -> Namespace {
    Namespace::from(format!("n{index}"))
}

/// With labels of a team, tested or not; or gone.
pub fn namespace(index: u8, labels: Option<u8>) -> Event {
    let name = namespace_name(index);
    let Some(gene) = labels else { return Event::NamespaceGone(name) };
    let team = ("team".to_owned(), (gene % 2).to_string());
    let tested = (gene >= 2).then(|| ("tested".to_owned(), String::new()));
    Event::NamespaceSeen { name, labels: std::iter::once(team).chain(tested).collect() }
}

pub fn policy(gene: &PolicyGene) -> Policy {
    Policy {
        levels: if gene.topology { vec!["block".to_owned(), "rack".to_owned()] } else { Vec::new() },
        history_percent: gene.history_percent,
        max_reservations: gene.max_reservations,
        max_evictions_per_minute: gene.evictions,
        rank_every_ms: if gene.ranks { 5_000 } else { SELDOM_MS },
        consolidate: gene.consolidate,
        keep_surplus: gene.keep_surplus,
        // Not of their own, so that there are no more systems than before: both of both come up.
        share_sizes: gene.sigmas_percent == 0,
        burst_sigmas_percent: gene.sigmas_percent,
        fair_reclaim: gene.fair_reclaim,
        ..Policy::default()
    }
}

fn spread(gene: SpreadGene) -> Spread {
    let level = ["island", "node", "rack", "block", "row"][usize::from(gene.level)];
    Spread { level: level.to_owned(), required: gene.required }
}

fn classes(gene: u8) -> Vec<ClassWish> {
    let wish = |at: usize, speed_milli: u32| ClassWish { class: Class::from(CLASSES[at].0), speed_milli, devices: 0 };
    match gene {
        0 => Vec::new(),
        1 => vec![wish(0, 1_000)],
        2 => vec![wish(1, 1_000)],
        3 => vec![wish(0, 1_000), wish(1, 400)],
        _ => vec![wish(0, 300), wish(1, 900)],
    }
}

fn affinity((required, preferred): (u8, u8)) -> Affinity {
    let of = |key: &str, rule: Rule| Term(vec![requirement(key, rule)]);
    let required = match required {
        0 => vec![of("zone", Rule::In(vec!["0".to_owned()])), of("rack", Rule::Exists)],
        1 => vec![Term(vec![requirement("zone", Rule::Lt(1)), requirement("block", Rule::NotIn(vec!["1".to_owned()]))])],
        2 => vec![of("rack", Rule::DoesNotExist)],
        _ => Vec::new(),
    };
    let rather = |weight: u32, term: Term| Preference { weight, term };
    let preferred = match preferred {
        0 => Vec::new(),
        1 => vec![rather(10, of("zone", Rule::Gt(0)))],
        _ => vec![rather(60, of("rack", Rule::In(vec!["1".to_owned()]))), rather(40, of("zone", Rule::Lt(1)))],
    };
    Affinity { required, preferred }
}

fn ask(gene: &GroupGene) -> Ask {
    Ask {
        amount: match gene.amount {
            AmountGene::None => Amount::None,
            AmountGene::Whole(devices) => Amount::Whole(devices),
            AmountGene::Mib(mib) => Amount::MemoryMib(mib),
            AmountGene::Milli(milli) => Amount::Milli(milli),
            AmountGene::Mig(profile) => Amount::Mig(Profile::ALL[usize::from(profile)]),
        },
        classes: classes(gene.classes),
        cpu_milli: gene.cores * 1_000,
        memory_mib: gene.gib * GIB,
        selector: gene.zone.map(|zone| ("zone".to_owned(), vec![zone.to_string()])).into_iter().collect(),
        affinity: gene.affinity.map(affinity).unwrap_or_default(),
        tolerations: if gene.tolerates { vec![Toleration::of("special")] } else { Vec::new() },
        named: false,
    }
}

fn group(number: usize, gene: &GroupGene) -> Group {
    Group {
        name: format!("g{number}"),
        min: gene.min,
        max: gene.min + gene.extra,
        ask: ask(gene),
        spread: gene.spread.map(spread),
    }
}

/// Linear; bent; bent, with a choice at each size, the larger one better at larger sizes.
fn curve(gene: u8) -> Vec<SpeedPoint> {
    let bent = [(1, 1_000), (2, 1_800), (4, 3_000), (8, 4_000)].map(|(workers, speed)| SpeedPoint::new(workers, speed));
    let choices = |point: SpeedPoint| {
        [0, 1].map(|choice| SpeedPoint {
            speed_milli: if choice == 1 { point.workers * 900 } else { point.speed_milli },
            choice: Some(choice),
            ..point
        })
    };
    match gene {
        0 => Vec::new(),
        1 => bent.to_vec(),
        _ => bent.into_iter().flat_map(choices).collect(),
    }
}

pub fn job(gene: &JobGene, queues: usize) -> JobSpec {
    let plain = JobSpec::workers(queue_name(gene.queue % queues.max(1)), 1, 1, Ask::default());
    JobSpec {
        namespace: namespace_name(gene.namespace),
        priority: gene.priority,
        owner: format!("u{}", gene.priority.rem_euclid(2)),
        recipe: format!("r{}", gene.groups.len()),
        groups: gene.groups.iter().enumerate().map(|(number, of)| group(number, of)).collect(),
        spread: gene.spread.map(spread),
        preemptible: gene.preemptible,
        min_runtime_ms: gene.min_runtime_s * 1_000,
        max_disruptions_per_hour: gene.max_disruptions.unwrap_or(u32::MAX),
        restart_ms: gene.restart_ms,
        backoff_limit: 3,
        expected_ms: gene.expected_s.map(|seconds| seconds * 1_000),
        speedup: curve(gene.curve),
        ..plain
    }
}

pub fn model(index: usize, generation: u64, queues: usize) -> ModelSpec {
    let amount = if index == 2 { Amount::MemoryMib(20_000) } else { Amount::Whole(1) };
    ModelSpec {
        queue: queue_name(index % queues.max(1)),
        namespace: namespace_name(0),
        priority: i32::try_from(index).unwrap(),
        ask: Ask { amount, ..Ask::default() },
        slo_ms: 250,
        min: u32::from(index == 1),
        max: 4,
        zero_after_ms: 20_000,
        max_rows: 16,
        max_sharers: if index == 0 { 3 } else { 2 },
        memory: (index == 1).then_some(ModelMemory { weights_mib: 30_000, row_kib: 512 }),
        generation,
    }
}
