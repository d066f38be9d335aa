//! A cluster as in production: racks and blocks, teams in departments with weights, most GPUs busy, hundreds of gangs queued.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_core::names::QueueName;
use tidegate_core::quota::{NodeIx, QueueQuota, Quota};

use super::settings::{ProductionSettings, Size, Topology};
use super::{Class, Ms, Scene, Setup, Workload, generate};
use crate::Error;

/// The setup that the settings describe. Workloads created at 0: first those that fill the GPUs, then the queued ones.
///
/// # Errors
/// When a wish names a level that the topology does not have, or there is no team or size to draw.
pub fn production(name: &str, settings: &ProductionSettings) -> Result<Setup, Error> {
    let layout = generate::layout(&settings.topology);
    let gpus = u64::from(layout.nodes()) * settings.topology.node_milli.unsigned_abs() / 1000;
    let (queues, teams) = queues(settings, gpus);
    let classes = classes(&settings.sizes, &settings.topology)?;
    let mut draw = Draw { random: StdRng::seed_from_u64(settings.seed), settings, teams, workloads: Vec::new() };
    draw.fill(gpus * settings.busy_milli / 1000)?;
    for _ in 0..settings.queued {
        draw.one(0)?;
    }
    for at in 0..settings.arriving {
        draw.one(u64::from(at + 1) * settings.every_ms)?;
    }
    let scene = Scene { name: name.to_owned(), resources: vec!["gpu".to_owned()], queues, classes, layout: Some(layout) };
    Ok(Setup { scene, workloads: draw.workloads })
}

/// Departments, then teams; and the index of each team with its demand.
fn queues(settings: &ProductionSettings, gpus: u64) -> (Vec<QueueQuota>, Vec<(NodeIx, u32)>) {
    let queue = |name: &str, parent: Option<&str>, weight: u32, nominal: u64| QueueQuota {
        name: QueueName::from(name),
        parent: parent.map(QueueName::from),
        weight_milli: weight * 1000,
        quotas: vec![(0, Quota { nominal: i64::try_from(nominal * 1000).unwrap_or(0), ..Quota::default() })],
    };
    let mut departments: Vec<&str> = settings.teams.iter().map(|team| team.parent.as_str()).collect();
    departments.sort_unstable();
    departments.dedup();
    let given = gpus * settings.nominal_milli / 1000;
    let weights: u64 = settings.teams.iter().map(|team| u64::from(team.weight)).sum();
    let share = |weight: u32| given * u64::from(weight) / weights.max(1);
    let left = gpus.saturating_sub(settings.teams.iter().map(|team| share(team.weight)).sum());
    // What belongs to no team is quota of the root, for all to borrow.
    let mut queues = vec![queue("", None, 1, left)];
    for department in departments {
        let weight = settings.teams.iter().filter(|team| team.parent == department).map(|team| team.weight).sum();
        queues.push(queue(department, None, weight, 0));
    }
    let mut teams = Vec::new();
    for team in &settings.teams {
        teams.push((NodeIx(u32::try_from(queues.len()).unwrap_or(u32::MAX)), team.demand));
        queues.push(queue(&team.name, Some(&team.parent), team.weight, share(team.weight)));
    }
    (queues, teams)
}

/// One class per size: pods of one node's GPUs at most.
pub(super) fn classes(sizes: &[Size], topology: &Topology) -> Result<Vec<Class>, Error> {
    let node = u32::try_from(topology.node_milli / 1000).unwrap_or(1).max(1);
    let class = |size: &Size| {
        let wish = size.wish.as_ref().map(|wish| generate::wish(wish, Some(topology))).transpose()?;
        let pods = size.gpus.div_ceil(node).max(1);
        let per_pod = vec![(0, i64::from(size.gpus / pods) * 1000)];
        Ok(Class { name: format!("{}gpu", size.gpus), pods, per_pod, priority: 0, wish })
    };
    sizes.iter().map(class).collect()
}

/// Which of several, drawn by how often each is.
pub(super) fn pick(random: &mut StdRng, often: impl Iterator<Item = u32> + Clone) -> Option<usize> {
    let all: u64 = often.clone().map(u64::from).sum();
    let mut at = if all == 0 { return None } else { random.random_range(0..all) };
    often.map(u64::from).position(|often| {
        let here = at < often;
        at = at.saturating_sub(often);
        here
    })
}

struct Draw<'a> {
    random: StdRng,
    settings: &'a ProductionSettings,
    teams: Vec<(NodeIx, u32)>,
    workloads: Vec<Workload>,
}

impl Draw<'_> {
    /// Draws workloads until they hold so many GPUs.
    fn fill(&mut self, gpus: u64) -> Result<(), Error> {
        let mut held = 0;
        while held < gpus {
            let size = self.one(0)?;
            held += u64::from(size);
        }
        Ok(())
    }

    /// One workload; its GPUs.
    fn one(&mut self, created_ms: Ms) -> Result<u32, Error> {
        let nothing =
            || Error::Usage("simulator/settings/production-1300.yaml: there must be a team and a size with more than 0".into());
        let team = pick(&mut self.random, self.teams.iter().map(|(_, demand)| *demand)).ok_or_else(nothing)?;
        let size = pick(&mut self.random, self.settings.sizes.iter().map(|size| size.often)).ok_or_else(nothing)?;
        let queue = self.teams.get(team).map(|(queue, _)| *queue).ok_or_else(nothing)?;
        let (least, most) = self.settings.runtime_ms;
        let ratio = most as f64 / least.max(1) as f64;
        // The settings keep it far below what a float cannot count.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "run times are positive and small")]
        let runtime_ms = (least as f64 * ratio.powf(self.random.random::<f64>())) as Ms;
        let class = u16::try_from(size).unwrap_or(u16::MAX);
        self.workloads.push(Workload { queue, class, created_ms, runtime_ms });
        Ok(self.settings.sizes.get(size).map_or(1, |size| size.gpus))
    }
}
