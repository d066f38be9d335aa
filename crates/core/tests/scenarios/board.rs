//! Sets a case up, lets the engine decide, and says in words what it did.

use tidegate_core::engine::{Block, Impossible};
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::labels::Selector;
use tidegate_core::names::{Class, DeviceId, JobName, Namespace, NodeName, QueueName};
use tidegate_core::plan::{Action, ActionId, ActionKind, Placed, Plan, Reason};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Device, Discipline, NodeSpec, Overcommit, Phase, Queue, Quota, Resource, Run, Scarce, Seat, Taint};
use tidegate_core::time::At;
use tidegate_core::{Engine, State};

use super::table::{Case, JobLine, Line, job, number, pair, range, term, time};

const NOW: At = At(10_000_000);

struct Board {
    engine: Engine,
    now: At,
    plan: Plan,
}

/// What is wrong with a case, if anything.
pub fn play(case: &Case) -> Result<(), String> {
    let mut board = Board { engine: Engine::default(), now: NOW, plan: Plan::default() };
    let mut decided = false;
    let mut step = 0;
    board.tell(Event::PolicySet(Policy { grow_after_ms: 5_000, ..Policy::default() }));
    for (section, lines) in &case.sections {
        match section.as_str() {
            "policy" => lines.iter().for_each(|line| board.policy(line)),
            "namespaces" => lines.iter().for_each(|line| board.namespace(line)),
            "nodes" => lines.iter().for_each(|line| board.node(line)),
            "queues" => lines.iter().for_each(|line| board.queue(line)),
            "running" => lines.iter().for_each(|line| board.running(&job(line))),
            "waiting" => lines.iter().for_each(|line| board.submit(&job(line))),
            "later" => {
                board.happen();
                board.later(lines);
                decided = false;
            }
            _ => {
                if !decided {
                    board.plan = board.engine.decide(board.now);
                    decided = true;
                    step += 1;
                }
                board.compare(lines).map_err(|wrong| format!("== {} (decision {step})\n{wrong}", case.name))?;
            }
        }
    }
    assert!(decided, "{}: a case ends with what is expected", case.name);
    Ok(())
}

impl Board {
    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    fn policy(&mut self, line: &Line) {
        let mut policy = self.engine.state().policy.clone();
        for (key, value) in line.iter().map(|word| pair(word)) {
            match key {
                "levels" => policy.levels = value.split(',').map(str::to_owned).collect(),
                "reservations" => policy.max_reservations = number(value),
                "cap" => policy.max_evictions_per_minute = number(value),
                "fair" => policy.fair_reclaim = true,
                "history" => policy.history_percent = number(value),
                "half" => policy.half_life_ms = time(value),
                other => panic!("no policy `{other}`"),
            }
        }
        self.tell(Event::PolicySet(policy));
    }

    fn namespace(&mut self, line: &Line) {
        let (name, labels) = line.split_first().unwrap();
        let labels = labels.iter().map(|word| pair(word)).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        self.tell(Event::NamespaceSeen { name: Namespace::from(name.as_str()), labels });
    }

    fn node(&mut self, line: &Line) {
        let [name, devices, options @ ..] = line.as_slice() else { panic!("NAME COUNTxCLASS ...: {line:?}") };
        let name = NodeName::from(name.as_str());
        let mut spec = NodeSpec::default();
        let (mut mig, mut islands, mut drained, mut gone) = (false, 1, Vec::new(), false);
        for (key, value) in options.iter().map(|word| pair(word)) {
            match key {
                "mig" => mig = true,
                "islands" => islands = number(value),
                "cores" => spec.cpu_milli = number::<u64>(value) * 1_000,
                "gib" => spec.memory_mib = number::<u64>(value) * 1_024,
                "taint" => spec.taints.push(Taint::new(value)),
                "drained" => drained = range(value).collect(),
                "gone" => gone = true,
                label => drop(spec.labels.insert(label.to_owned(), value.to_owned())),
            }
        }
        self.tell(Event::NodeSet { name: name.clone(), spec: spec.into() });
        let (count, class) = devices.split_once('x').unwrap_or(("0", ""));
        let count: u32 = number(count);
        for index in 0..count {
            let mib = if class.ends_with("80GB") { 80_000 } else { 40_000 };
            let device = Device::new(format!("{name}:{index}"), name.clone(), class, mib);
            let island = u8::try_from(index * islands / count.max(1)).unwrap();
            self.tell(Event::DeviceSeen(Device { mig, island, ..device }));
        }
        for index in drained {
            self.tell(Event::DeviceDrained { id: DeviceId::from(format!("{name}:{index}")), drained: true });
        }
        if gone {
            self.tell(Event::NodeLost(name));
        }
    }

    fn queue(&mut self, line: &Line) {
        let (name, options) = line.split_first().unwrap();
        let mut queue = Queue::default();
        let mut last = Resource::Gpu;
        for (key, value) in options.iter().map(|word| pair(word)) {
            let unit = if last == Resource::Memory { 1_024 } else { 1_000 };
            match key {
                "parent" => queue.parent = Some(QueueName::from(value)),
                "weight" => queue.weight_milli = number::<u32>(value) * 1_000,
                "priority" => queue.priority = number(value),
                "takes" => queue.namespaces = Some(Selector { match_expressions: term(value).0, ..Selector::default() }),
                "strict" => queue.discipline = Discipline::StrictFifo,
                "responsive" => queue.discipline = Discipline::Responsive,
                "borrow" => queue.quotas.get_mut(&last).unwrap().borrowing_limit = Some(number::<i64>(value) * unit),
                "lend" => queue.quotas.get_mut(&last).unwrap().lending_limit = Some(number::<i64>(value) * unit),
                resource => {
                    last = match resource {
                        "gpu" => Resource::Gpu,
                        "cpu" => Resource::Cpu,
                        "memory" => Resource::Memory,
                        class => Resource::Class(Class::from(class)),
                    };
                    let unit = if last == Resource::Memory { 1_024 } else { 1_000 };
                    queue.quotas.insert(last.clone(), Quota { nominal: number::<i64>(value) * unit, ..Quota::default() });
                }
            }
        }
        self.tell(Event::QueueSet { name: QueueName::from(name.as_str()), queue });
    }

    fn submit(&mut self, line: &JobLine) {
        // One millisecond apart, so that the order of lines is the order of age.
        self.now = self.now.plus(1);
        self.tell(Event::JobSet { name: JobName::from(line.name.as_str()), spec: line.spec.clone().into() });
    }

    /// Put where it is said to run, whatever the engine would have chosen.
    fn running(&mut self, line: &JobLine) {
        let ago = |key: &str, otherwise: u64| At(NOW.0 - line.said.get(key).map_or(otherwise, |text| time(text)));
        let since = ago("since", 60_000);
        let mut state = self.engine.state().clone();
        state.now = since;
        self.engine = Engine::from(state);
        self.engine.apply(since, Event::JobSet { name: JobName::from(line.name.as_str()), spec: line.spec.clone().into() });
        let mut state = self.engine.state().clone();
        let seats = seats(&state, line);
        let expected_end = since.plus(line.spec.expected_ms.unwrap_or(24 * 3_600_000));
        let run = Run {
            attempt: 1,
            seats,
            since,
            expected_end,
            observed: true,
            stop: None,
            backfilled_until: None,
            counted: At::default(),
        };
        let job = state.jobs.get_mut(&JobName::from(line.name.as_str())).unwrap();
        job.phase = Phase::Running(run);
        job.attempts = 1;
        job.progress.checkpoint_at = line.said.get("checkpoint").map(|text| At(NOW.0 - time(text)));
        state.now = NOW;
        self.engine = Engine::from(state);
    }

    /// All that was ordered happens.
    fn happen(&mut self) {
        let actions: Vec<Action> = self.engine.outstanding().cloned().collect();
        for action in actions {
            match action.kind {
                ActionKind::StopJob { job, attempt, .. } => {
                    self.tell(Event::JobExited { name: job, attempt, exit: JobExit::Stopped });
                }
                ActionKind::StartJob { job, attempt, .. } => {
                    self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                    self.tell(Event::JobStarted { name: job, attempt });
                }
                ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => unreachable!("no models here"),
            }
        }
    }

    fn later(&mut self, lines: &[Line]) {
        for line in lines {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            match words.as_slice() {
                [after] => self.now = self.now.plus(time(after)),
                [name, "ends"] => {
                    let name = JobName::from(*name);
                    let attempt = self.engine.state().jobs[&name].attempts;
                    self.tell(Event::JobExited { name, attempt, exit: JobExit::Succeeded });
                }
                [device, "drains"] => self.tell(Event::DeviceDrained { id: DeviceId::from(*device), drained: true }),
                [node, "gone"] => self.tell(Event::NamespaceGone(Namespace::from(*node))),
                ["namespace", ..] => self.namespace(&line.iter().skip(1).cloned().collect()),
                ["node", ..] => self.node(&line.iter().skip(1).cloned().collect()),
                ["queue", ..] => self.queue(&line.iter().skip(1).cloned().collect()),
                [node, "is", "overcommitted:", jobs @ ..] => {
                    let jobs = jobs.iter().map(|job| JobName::from(*job)).collect();
                    let over = Overcommit { scarce: Scarce::Gpus, jobs, replicas: Vec::new() };
                    self.tell(Event::NodeOvercommitted { name: NodeName::from(*node), over });
                }
                [name, "is", "refused"] => {
                    let name = JobName::from(*name);
                    let attempt = self.engine.state().jobs[&name].attempts;
                    self.tell(Event::JobExited { name, attempt, exit: JobExit::Refused });
                }
                [queue, "is", "deleted"] => self.tell(Event::QueueRemoved(QueueName::from(*queue))),
                [node, "is", "lost"] => self.tell(Event::NodeLost(NodeName::from(*node))),
                [name, "comes:", ..] => {
                    let rest = line.iter().skip(2).cloned();
                    self.submit(&job(&std::iter::once((*name).to_owned()).chain(rest).collect()));
                }
                other => panic!("what happens? {other:?}"),
            }
        }
    }

    fn compare(&self, lines: &[Line]) -> Result<(), String> {
        let mut expected: Vec<String> = lines.iter().map(|line| line.join(" ")).filter(|line| line != "nothing").collect();
        let mut found = told(&self.engine, &self.plan);
        expected.sort();
        found.sort();
        if expected == found {
            return Ok(());
        }
        Err(format!("expected\n    {}\nfound\n    {}\n", expected.join("\n    "), found.join("\n    ")))
    }
}

fn seats(state: &State, line: &JobLine) -> Vec<Seat> {
    let mut groups = (0_u16..).zip(&line.spec.groups).flat_map(|(number, group)| vec![number; group.min as usize]);
    let places = line.places.iter().map(|place| {
        let (place, slices) = place
            .split_once('#')
            .map_or((place.as_str(), 0), |(place, slices)| (place, range(slices).map(|at| 1_u8 << at).sum()));
        let (node, devices) = place.split_once(':').map_or((place, None), |(node, devices)| (node, Some(devices)));
        let mask = devices.map_or(0, |devices| range(devices).map(|at| 1_u64 << at).sum());
        let node = state.nodes.ix(&NodeName::from(node)).unwrap_or_else(|| panic!("no node `{node}`"));
        Seat { group: groups.next().unwrap_or(0), node, mask, slices }
    });
    places.collect()
}

/// What was ordered, and why each waiting job waits.
fn told(engine: &Engine, plan: &Plan) -> Vec<String> {
    let mut told: Vec<String> = plan.actions.iter().map(|action| action_told(engine.state(), action)).collect();
    for (name, job) in engine.state().jobs.iter() {
        if matches!(job.phase, Phase::Waiting { .. }) {
            told.push(format!("{name} waits: {}", engine.blocked(name).map_or_else(|| "its turn".to_owned(), why)));
        }
    }
    told
}

fn why(block: &Block) -> String {
    match block {
        Block::Quota { at, resource, .. } => format!("{} of {at}", String::from(resource.clone())),
        Block::Capacity { .. } => "devices".to_owned(),
        Block::Spread { level } => format!("one {level}"),
        Block::Behind(first) => format!("behind {first}"),
        Block::EvictionCap => "cap".to_owned(),
        Block::Queue(problem) => problem.clone(),
        Block::Namespace(_) => "its namespace".to_owned(),
        Block::Impossible(why) => format!("never ({})", never(why)),
    }
}

/// The field that makes it impossible.
fn never(why: &Impossible) -> String {
    match why {
        Impossible::Affinity { problem, .. } => problem.to_string(),
        Impossible::Class { .. } => "class".to_owned(),
        Impossible::Labels { .. } => "labels".to_owned(),
        Impossible::Amount { .. } => "size of a worker".to_owned(),
        Impossible::Beside { .. } => "cores or memory".to_owned(),
        Impossible::Workers { .. } => "workers".to_owned(),
        Impossible::Level { level, .. } => format!("no level {level}"),
        Impossible::Spread { level, .. } => format!("one {level}"),
        Impossible::Together { .. } => "its groups together".to_owned(),
        Impossible::Quota { at, resource, .. } => format!("{} of {at}", String::from(resource.clone())),
    }
}

fn action_told(state: &State, action: &Action) -> String {
    let category = action.reason.category();
    match &action.kind {
        ActionKind::StartJob { job, workers, .. } => {
            let places: Vec<String> = workers.iter().map(place).collect();
            let after: Vec<String> = action.after.iter().filter_map(|id| stopped(state, *id)).collect();
            let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(" ")) };
            let how = match &action.reason {
                Reason::Turn { .. } => String::new(),
                Reason::Lent { owner, .. } => format!(" (lent by {owner})"),
                Reason::Backfill { before, .. } => format!(" (before {before})"),
                _ => format!(" ({category})"),
            };
            format!("{job} on {}{after}{how}", places.join(" "))
        }
        ActionKind::StopJob { job, resume_with, .. } => {
            let by = match &action.reason {
                Reason::Reclaim { by, .. }
                | Reason::FairShare { by, .. }
                | Reason::Preempt { by, .. }
                | Reason::Moved { by, .. }
                | Reason::Overstayed { by, .. }
                | Reason::Yield { by, .. } => format!(" by {}", by.to_string().trim_start_matches("job/")),
                _ => String::new(),
            };
            let to = if *resume_with == 0 { "stops".to_owned() } else { format!("goes on with {resume_with}") };
            format!("{job} {to} ({category}{by})")
        }
        ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => unreachable!("no models here"),
    }
}

fn stopped(state: &State, id: ActionId) -> Option<String> {
    match &state.actions.get(&id)?.kind {
        ActionKind::StopJob { job, .. } => Some(job.to_string()),
        _ => None,
    }
}

fn place(placed: &Placed) -> String {
    let index = |id: &DeviceId| -> u32 { number(id.0.rsplit(':').next().unwrap()) };
    let devices: Vec<u32> = placed.devices.iter().map(index).collect();
    let joined = match devices.as_slice() {
        [] => String::new(),
        [one] => format!(":{one}"),
        [first, .., last] if last - first + 1 == u32::try_from(devices.len()).unwrap() => format!(":{first}-{last}"),
        many => format!(":{}", many.iter().map(u32::to_string).collect::<Vec<_>>().join("+")),
    };
    let slices = match placed.slices {
        0 => String::new(),
        mask if mask.is_power_of_two() => format!("#{}", mask.trailing_zeros()),
        mask => format!("#{}-{}", mask.trailing_zeros(), mask.ilog2()),
    };
    format!("{}{joined}{slices}", placed.node)
}
