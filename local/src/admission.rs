//! What objects must be for this box: queues that are a tree, models that load, jobs that fit. Checked before anything starts.

mod namespaces;
mod nodes;
mod queues;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidegate_api::convert;
use tidegate_api::kinds::{Model, ModelSpec, PoolSpec, TrainingJob, TrainingJobSpec};
use tidegate_api::manifest::{Object, Problem, Problems};
use tidegate_api::model_info::ModelInfo;
use tidegate_core::state::{Amount, Ask, Group};
use tokio::process::Command;

use crate::machine::{Machine, in_pool};
use crate::manifests::Sourced;
use crate::objects::Objects;

/// Checks objects against the box.
pub struct Admission<'a> {
    /// The `tidegate` executable, which inspects models.
    pub exe: &'a Path,
    pub machine: &'a Machine,
    /// What was applied before.
    pub known: &'a Objects,
}

impl Admission<'_> {
    /// Either all are fine, with what their model files say, or the problems of all.
    pub async fn check(&self, new: &[Sourced]) -> Result<BTreeMap<String, ModelInfo>, Problems> {
        let machine = self.machine_in(&self.pool(new));
        let here = Admission { machine: &machine, ..*self };
        let mut problems = check_names(self.known, new);
        let mut infos = BTreeMap::new();
        if let Some(pool) = self.second_pool(new) {
            problems.push(problem(
                pool,
                "metadata.name",
                pool.object.name(),
                "is a second Pool",
                "one box has one pool: delete the other first",
            ));
        }
        for sourced in new {
            match &sourced.object {
                Object::TrainingJob(job) => here.job(sourced, job, new, &mut problems),
                Object::Model(model) => {
                    let info = here.model(sourced, model, new, &mut problems).await;
                    infos.extend(info.map(|info| (sourced.object.name().to_owned(), info)));
                }
                Object::Pool(_) | Object::Queue(_) => {}
            }
        }
        if problems.is_empty() { Ok(infos) } else { Err(Problems(problems)) }
    }

    fn second_pool<'s>(&self, new: &'s [Sourced]) -> Option<&'s Sourced> {
        let mut pools = new.iter().filter(|sourced| matches!(sourced.object, Object::Pool(_)));
        let known = self.known.iter().find(|stored| matches!(stored.object, Object::Pool(_)));
        match known {
            Some(known) => pools.find(|pool| pool.object.name() != known.object.name()),
            None => pools.nth(1),
        }
    }

    /// The pool in which the objects will be.
    fn pool(&self, new: &[Sourced]) -> PoolSpec {
        let pool =
            new.iter().find_map(|sourced| if let Object::Pool(pool) = &sourced.object { Some(pool.spec.clone()) } else { None });
        pool.unwrap_or_else(|| self.known.pool())
    }

    fn machine_in(&self, pool: &PoolSpec) -> Machine {
        Machine { spec: in_pool(&self.machine.spec, pool), ..self.machine.clone() }
    }

    fn queue_exists(&self, name: &str, new: &[Sourced]) -> bool {
        let queue = |sourced: &Sourced| matches!(sourced.object, Object::Queue(_)) && sourced.object.name() == name;
        self.known.contains("Queue", name) || new.iter().any(queue)
    }

    fn queue(&self, sourced: &Sourced, name: &str, new: &[Sourced], problems: &mut Vec<Problem>) {
        if !self.queue_exists(name, new) {
            problems.push(problem(
                sourced,
                "spec.queue",
                name,
                "is not a Queue here",
                "apply a Queue of this name, or name another",
            ));
        }
    }

    fn job(&self, sourced: &Sourced, job: &TrainingJob, new: &[Sourced], problems: &mut Vec<Problem>) {
        let spec = &job.spec;
        self.queue(sourced, &spec.queue, new, problems);
        let elsewhere = nodes::of_job(&self.machine.spec, sourced, spec);
        problems.extend(elsewhere.or_else(|| self.too_large(sourced, spec)));
        problems.extend(self.unknown_level(sourced, spec, new));
        let dir = spec.template.working_dir.as_deref().unwrap_or_default();
        if !Path::new(dir).is_dir() {
            problems.push(problem(sourced, "spec.template.workingDir", dir, "is not a folder", "name one that exists"));
        }
    }

    /// A job whose smallest size the empty box does not take: a group alone, or all of them together.
    fn too_large(&self, sourced: &Sourced, spec: &TrainingJobSpec) -> Option<Problem> {
        let groups = convert::groups(spec);
        let alone = groups.iter().enumerate().find_map(|(index, group)| {
            let field = if group.name.is_empty() { "workers".to_owned() } else { format!("groups[{index}]") };
            self.group_too_large(sourced, &field, group)
        });
        alone.or_else(|| {
            let least: Vec<String> = groups.iter().map(|group| format!("{} x {}", group.min, group.name)).collect();
            let what = "is more than this box takes: each group fits, all of them at their smallest do not";
            let remedy = "lower the min of some, or ask for less with gpu, cpuMilli and memoryMib";
            (!self.machine.takes(&groups)).then(|| problem(sourced, "spec.groups", &least.join(", "), what, remedy))
        })
    }

    fn group_too_large(&self, sourced: &Sourced, field: &str, group: &Group) -> Option<Problem> {
        let ask = &group.ask;
        let room = self.machine.room(ask);
        if room >= group.min {
            return None;
        }
        let (devices, suit) = (self.machine.devices.len(), self.machine.suiting(ask));
        let mut what =
            format!("is more than this box takes: of its {devices} device(s) {suit} suit, with room for {room} worker(s)");
        if ask.cpu_milli > 0 || ask.memory_mib > 0 {
            let box_has = &self.machine.spec;
            write!(what, "; it has {} thousandths of a core and {} MiB", box_has.cpu_milli, box_has.memory_mib).ok()?;
        }
        let less = "ask for less or for others with gpu, cpuMilli and memoryMib";
        let remedy = if room == 0 { less.to_owned() } else { format!("lower {field}.min to at most {room}, or {less}") };
        Some(problem(sourced, &format!("spec.{field}.min"), &group.min.to_string(), &what, &remedy))
    }

    /// A wish to be close together at a level that nobody has named.
    fn unknown_level(&self, sourced: &Sourced, spec: &TrainingJobSpec, new: &[Sourced]) -> Option<Problem> {
        let levels = self.pool(new).topology_levels;
        let of_groups = spec.groups.iter().enumerate();
        let of_groups = of_groups.map(|(index, group)| (format!("spec.groups[{index}].spread.level"), group.spread.as_ref()));
        let mut wishes = std::iter::once(("spec.spread.level".to_owned(), spec.spread.as_ref())).chain(of_groups);
        wishes.find_map(|(field, wish)| {
            let level = &wish?.level;
            let is_known = ["island", "node"].contains(&level.as_str()) || levels.contains(level);
            let remedy = "write island, node, or one of the Pool's topologyLevels";
            (!is_known).then(|| problem(sourced, &field, level, "is not a level of the topology", remedy))
        })
    }

    /// Why the empty box takes no replica: its nodes, its devices or their memory.
    fn replica(&self, sourced: &Sourced, spec: &ModelSpec) -> Option<Problem> {
        let ask = convert::ask(&spec.gpu, spec.node_affinity.as_ref());
        let elsewhere = nodes::of_model(&self.machine.spec, sourced, spec);
        let no_device = || {
            let asked = serde_json::to_string(&spec.gpu).unwrap_or_default();
            let (what, remedy) = ("suits no device of this box", "ask for another class, or for less");
            (self.machine.room(&ask) == 0).then(|| problem(sourced, "spec.gpu", &asked, what, remedy))
        };
        let no_memory = || {
            let mib = convert::memory(spec.memory.as_ref()?).mib(spec.batching.max_rows);
            let slice = Ask { amount: Amount::Slice { milli: 1, mib }, ..ask.clone() };
            let what = "is more than a device here has, with batches of batching.maxRows rows";
            let remedy = "lower weightsMib, perRowKib or batching.maxRows";
            (self.machine.room(&slice) == 0).then(|| problem(sourced, "spec.memory", &format!("{mib} MiB"), what, remedy))
        };
        elsewhere.or_else(no_device).or_else(no_memory)
    }

    async fn model(&self, sourced: &Sourced, model: &Model, new: &[Sourced], problems: &mut Vec<Problem>) -> Option<ModelInfo> {
        let spec = &model.spec;
        self.queue(sourced, &spec.queue, new, problems);
        problems.extend(self.replica(sourced, spec));
        if let Some(embedding) = &spec.embedding
            && !Path::new(&embedding.tokenizer).is_file()
        {
            let remedy = "name a tokenizer.json that exists";
            problems.push(problem(sourced, "spec.embedding.tokenizer", &embedding.tokenizer, "is not a file", remedy));
        }
        match inspect(self.exe, Path::new(&spec.source.onnx)).await {
            Ok(info) => Some(info),
            Err(what) => {
                problems.push(problem(
                    sourced,
                    "spec.source.onnx",
                    &spec.source.onnx,
                    &what,
                    "name an ONNX file that tract can run",
                ));
                None
            }
        }
    }
}

/// What keeps objects from being applied together with those that are there, whatever the box has.
pub fn check_names(known: &Objects, new: &[Sourced]) -> Vec<Problem> {
    [queues::check(known, new), namespaces::check(known, new)].concat()
}

/// Asks a replica process what a model file holds: a broken file breaks that process, not this one.
pub async fn inspect(exe: &Path, onnx: &Path) -> Result<ModelInfo, String> {
    if !onnx.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut command = Command::new(exe);
    command.args(["replica", "--inspect", "--onnx"]).arg(onnx).env("TIDEGATE_LOG", "error");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| format!("cannot be inspected: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("cannot be loaded").trim().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cannot be inspected: {e}"))
}

/// Where this program is. After an upgrade in place the running file has another name: the path is enough.
pub fn executable() -> Result<PathBuf, std::io::Error> {
    std::env::current_exe()
}

fn problem(sourced: &Sourced, field: &str, value: &str, what: &str, remedy: &str) -> Problem {
    Problem {
        file: sourced.file.clone(),
        subject: format!("{}/{}", sourced.object.kind(), sourced.object.name()),
        field: field.to_owned(),
        value: Some(value.to_owned()),
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    }
}
