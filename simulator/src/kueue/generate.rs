//! Kueue's workload generator (`test/performance/scheduler/runner/generator`): queues by cohort, workloads by class.
//!
//! Every set of every queue starts at 0 and creates one workload after each interval. A cohort is a top-level node that
//! neither lends nor borrows.

use tidegate_core::names::QueueName;
use tidegate_core::quota::{NodeIx, QueueQuota, Quota};

use super::settings::{KueueSettings, Queues, Topology, WishKind, WishSettings, Workloads};
use super::{Class, Layout, Scene, Setup, Wish, Workload};
use crate::Error;

/// The setup that the settings describe.
///
/// # Errors
/// When a wish names a level that the topology does not have.
pub fn kueue(name: &str, settings: &KueueSettings) -> Result<Setup, Error> {
    let mut setup = Setup {
        scene: Scene {
            name: name.to_owned(),
            resources: vec!["cpu".to_owned()],
            queues: Vec::new(),
            classes: Vec::new(),
            layout: settings.topology.as_ref().map(layout),
        },
        workloads: Vec::new(),
    };
    let cohorts = settings.cohorts.iter().flat_map(|set| (0..set.count).map(move |_| set));
    for (number, cohort) in cohorts.enumerate() {
        let cohort_name = format!("cohort-{number}");
        setup.scene.queues.push(queue(&cohort_name, None, Quota::closed(0)));
        for (set, queues) in cohort.queues.iter().enumerate() {
            for at in 0..queues.count {
                add_queue(&mut setup, settings, &cohort_name, &format!("cq-{set}-{at}-{cohort_name}"), queues)?;
            }
        }
    }
    setup.workloads.sort_by_key(|workload| (workload.created_ms, workload.queue, workload.class));
    Ok(setup)
}

fn queue(name: &str, parent: Option<&str>, quota: Quota) -> QueueQuota {
    QueueQuota { name: QueueName::from(name), parent: parent.map(QueueName::from), weight_milli: 1000, quotas: vec![(0, quota)] }
}

fn add_queue(setup: &mut Setup, settings: &KueueSettings, cohort: &str, name: &str, queues: &Queues) -> Result<(), Error> {
    let quota = Quota { nominal: queues.nominal_milli, borrowing_limit: Some(queues.borrowing_limit_milli), lending_limit: None };
    let node = NodeIx(u32::try_from(setup.scene.queues.len()).unwrap_or(u32::MAX));
    setup.scene.queues.push(queue(name, Some(cohort), quota));
    for set in &queues.workloads {
        let class = class(setup, settings, set)?;
        let created = |at: u32| u64::from(at + 1) * set.every_ms;
        let workload = |at| Workload { queue: node, class, created_ms: created(at), runtime_ms: set.runtime_ms };
        setup.workloads.extend((0..set.count).map(workload));
    }
    Ok(())
}

/// The index of the class of a set, added when it is new.
fn class(setup: &mut Setup, settings: &KueueSettings, set: &Workloads) -> Result<u16, Error> {
    let wish = set.wish.as_ref().map(|wish| self::wish(wish, settings.topology.as_ref())).transpose()?;
    let class =
        Class { name: set.class.clone(), pods: set.pods, per_pod: vec![(0, set.cpu_milli)], priority: set.priority, wish };
    let classes = &mut setup.scene.classes;
    let known = classes.iter().position(|known| *known == class);
    let at = known.unwrap_or_else(|| {
        classes.push(class);
        classes.len() - 1
    });
    u16::try_from(at).map_err(|_| Error::Usage("there are more than 65536 classes of workloads: use fewer".to_owned()))
}

/// A wish with its level as an index.
pub(super) fn wish(wish: &WishSettings, topology: Option<&Topology>) -> Result<Wish, Error> {
    let levels = topology.map_or(&[][..], |topology| &topology.levels);
    let at = levels.iter().position(|(known, _)| *known == wish.level).and_then(|at| u8::try_from(at).ok());
    let missing = || Error::Usage(format!("the topology has no level `{}`: add it or wish for another", wish.level));
    let level = at.ok_or_else(missing)?;
    Ok(match wish.kind {
        WishKind::Required => Wish::Required { level },
        WishKind::Preferred => Wish::Preferred { level },
        WishKind::Slices => Wish::Slices { level, size: wish.size },
    })
}

/// The layout of a topology.
pub(super) fn layout(topology: &Topology) -> Layout {
    let node = vec![(0, topology.node_milli)];
    Layout { levels: topology.levels.clone(), node, pods_per_node: topology.pods_per_node }
}
