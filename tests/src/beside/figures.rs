//! The figures of a run beside kube-scheduler, and what must hold of them.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Load;
use super::seen::{Overs, Seen};
use super::{GPUS, Settings};
use crate::scenario::stalls::Stalls;

/// No node may be asked for too much for longer.
const MOST_MS: u64 = 5_000;

/// As `--json` prints them.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub scenario: &'static str,
    pub nodes: u32,
    pub gpus: u32,
    pub seconds: u64,
    pub seed: u64,
    /// kube-scheduler placed pods with GPUs too.
    pub rival_gpus: bool,
    pub pods_made: u64,
    pub bound_by_tidegate: u64,
    /// By kube-scheduler, those that were bound blindly included.
    pub bound_by_others: u64,
    pub bound_blindly: u64,
    /// Pods that were evicted and made again.
    pub evicted: u64,
    /// Times that a node was asked for more than it has, and the longest of them; of CPU and memory where the end of what is ours would mend
    /// it.
    pub gpus_double_booked: u64,
    pub gpus_longest_ms: u64,
    pub cpu_overcommits: u64,
    pub cpu_longest_ms: u64,
    pub memory_overcommits: u64,
    pub memory_longest_ms: u64,
    /// Times that others asked for too much among themselves, of all resources: nothing of ours could mend it.
    pub overcommits_of_others: u64,
    /// At the end.
    pub still_overcommitted: usize,
    /// What the operator counts: repairs, and what it has left.
    pub repairs: u64,
    pub left: u64,
    /// The operator believes other than what the objects say.
    pub drifts: bool,
    /// For how long the machine's disk and its processors kept everybody waiting at most, and whether that was for so long that what did not
    /// hold says nothing.
    pub longest_write_ms: u64,
    pub longest_pause_ms: u64,
    pub void: bool,
}

impl Figures {
    pub(super) fn of(settings: &Settings, seen: &Seen, load: &Load, metrics: &str) -> Self {
        let now = Instant::now();
        let [gpus, cpu, memory] = seen.overs(now);
        let others = seen.of_others(now);
        let longest = |overs: Overs| ms(overs.longest);
        let [by_us, by_others] = seen.bound;
        Self {
            scenario: "beside",
            nodes: settings.nodes,
            gpus: settings.nodes * GPUS,
            seconds: settings.lasts.as_secs(),
            seed: settings.seed,
            rival_gpus: settings.rival_gpus,
            pods_made: load.made,
            bound_by_tidegate: by_us,
            bound_by_others: by_others,
            bound_blindly: load.blind,
            evicted: load.evicted,
            gpus_double_booked: gpus.count + others.first().map_or(0, |gpus| gpus.count),
            gpus_longest_ms: longest(gpus),
            cpu_overcommits: cpu.count,
            cpu_longest_ms: longest(cpu),
            memory_overcommits: memory.count,
            memory_longest_ms: longest(memory),
            overcommits_of_others: others.iter().map(|overs| overs.count).sum(),
            still_overcommitted: seen.still(),
            repairs: counted(metrics, "stopped"),
            left: counted(metrics, "left"),
            ..Self::default()
        }
    }

    pub(super) fn in_machine(self, stalls: Stalls) -> Self {
        Self { longest_write_ms: ms(stalls.write), longest_pause_ms: ms(stalls.pause), void: stalls.void(), ..self }
    }

    /// What does not hold.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        let double = self.gpus_double_booked;
        must(double == 0 || self.rival_gpus, format!("no GPU may be booked twice while one scheduler places them: {double}"));
        for (what, longest) in [("GPUs", self.gpus_longest_ms), ("CPU", self.cpu_longest_ms), ("memory", self.memory_longest_ms)]
        {
            must(longest <= MOST_MS, format!("too much of a node's {what} must be repaired within {MOST_MS} ms: {longest} ms"));
        }
        let still = self.still_overcommitted;
        must(still == 0, format!("no node may be asked for too much at the end: {still}"));
        must(self.bound_blindly == 0 || self.repairs > 0, "something must have been repaired".to_owned());
        let vain = self.overcommits_of_others;
        must(self.left <= vain, format!("only what others do among themselves may be left: {} of {vain}", self.left));
        must(!self.drifts, "the operator must believe what the objects say".to_owned());
        must(self.bound_by_tidegate > 0 && self.bound_by_others > 0, "both schedulers must have bound pods".to_owned());
        broken
    }

    /// For people.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { nodes, gpus, seconds, pods_made, bound_by_tidegate, bound_by_others, bound_blindly, evicted, .. } = self;
        writeln!(out, "{nodes} nodes, {gpus} GPUs, {seconds} s, seed {}; both place GPUs: {}", self.seed, self.rival_gpus)?;
        writeln!(out, "pods made                     {pods_made}, evicted and made again {evicted}")?;
        writeln!(out, "bound by Tidegate             {bound_by_tidegate}")?;
        writeln!(out, "bound by kube-scheduler       {}, blindly by hand {bound_blindly}", bound_by_others - bound_blindly)?;
        for (what, count, longest) in [
            ("GPUs", self.gpus_double_booked, self.gpus_longest_ms),
            ("CPU", self.cpu_overcommits, self.cpu_longest_ms),
            ("memory", self.memory_overcommits, self.memory_longest_ms),
        ] {
            writeln!(out, "too much asked of a node: {what:<6} {count} times, at worst {longest} ms")?;
        }
        writeln!(out, "too much among others         {} times", self.overcommits_of_others)?;
        writeln!(out, "repairs, left                 {}, {}", self.repairs, self.left)?;
        let (write, pause) = (self.longest_write_ms, self.longest_pause_ms);
        writeln!(out, "the machine stood still       {write} ms for its disk, {pause} ms for its processors, at most")
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The sum of a counter of the operator's over all resources.
fn counted(metrics: &str, answer: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("tidegate_operator_overcommit_repairs_total{"));
    let lines = lines.filter(|line| line.contains(&format!("answer=\"{answer}\"")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            cpu_longest_ms: 5_000,
            repairs: 3,
            bound_blindly: 3,
            bound_by_tidegate: 9,
            bound_by_others: 9,
            ..Figures::default()
        }
    }

    #[test]
    fn each_promise_breaks_by_itself() {
        type Spoil = fn(&mut Figures);
        let breaks: [(&str, Spoil); 7] = [
            ("booked twice", |f| f.gpus_double_booked = 1),
            ("GPUs must be repaired", |f| f.gpus_longest_ms = 5_001),
            ("memory must be repaired", |f| f.memory_longest_ms = 6_000),
            ("at the end", |f| f.still_overcommitted = 1),
            ("something", |f| f.repairs = 0),
            ("left", |f| f.left = 1),
            ("both schedulers", |f| f.bound_by_tidegate = 0),
        ];
        assert_eq!(good().broken(), Vec::<String>::new());
        for (word, spoil) in breaks {
            let mut figures = good();
            spoil(&mut figures);
            let broken = figures.broken();
            assert!(matches!(broken.as_slice(), [only] if only.contains(word)), "{word}: {broken:?}");
        }
    }

    #[test]
    fn counts_of_all_resources_are_added_up() {
        let name = "tidegate_operator_overcommit_repairs_total";
        let text = format!(
            "{name}{{answer=\"stopped\",resource=\"cpu\"}} 2\n{name}{{answer=\"stopped\",resource=\"memory\"}} 3\n{name}{{answer=\"left\",resource=\"cpu\"}} 7\n"
        );
        assert_eq!((counted(&text, "stopped"), counted(&text, "left")), (5, 7));
    }
}
