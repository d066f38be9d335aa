//! Work that waits for people and not for its turn: what it names is not there, or no state of the present cluster could hold it.

use std::collections::BTreeSet;

use crate::ask::Ask;
use crate::engine::{Block, Engine, Impossible};
use crate::names::{JobName, ModelName, QueueName};
use crate::node::Device;
use crate::state::State;

use super::waits::Waiting;

/// Why it waits for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// A word for programs, in `PascalCase`: one of few.
    pub word: &'static str,
    /// A sentence for people: what, and what to do.
    pub why: String,
}

impl Barred {
    fn new(word: &'static str, why: String) -> Self {
        Self { word, why }
    }
}

/// Of a waiting job, as of the last decision.
pub fn job(engine: &Engine, name: &JobName) -> Option<Barred> {
    let job = engine.state().jobs.get(name)?;
    Waiting::of(engine, name)?;
    queue(engine, &job.spec.queue).or_else(|| match engine.blocked(name)? {
        Block::Namespace(why) => Some(Barred::new("NamespaceNotTaken", why.clone())),
        Block::Impossible(why) => Some(Barred::new(why.word(), why.to_string())),
        _ => None,
    })
}

/// Of a model, whatever it wants now. Reads nodes until one has such a device.
pub fn model(engine: &Engine, name: &ModelName) -> Option<Barred> {
    let spec = &engine.state().models.get(name)?.spec;
    if let Some(barred) = queue(engine, &spec.queue) {
        return Some(barred);
    }
    if let Some(why) = engine.refuses_namespace(&spec.queue, &spec.namespace) {
        return Some(Barred::new("NamespaceNotTaken", why));
    }
    if let Err(problem) = spec.ask.affinity.check() {
        return Some(Barred::new("BadAffinity", problem.to_string()));
    }
    no_such_class(engine.state(), &spec.ask).map(|why| Barred::new(why.word(), why.to_string()))
}

/// No node has such a device, be it well or not.
fn no_such_class(state: &State, ask: &Ask) -> Option<Impossible> {
    let devices = || state.nodes.slots().flat_map(|(_, _, node)| &node.devices).filter(|device| device.named == ask.named);
    let suits = |device: &Device| ask.classes.is_empty() || ask.classes.iter().any(|wish| wish.class == device.class);
    if ask.devices() == 0 || devices().any(suits) {
        return None;
    }
    let known: BTreeSet<&str> = devices().map(|device| device.class.as_str()).collect();
    Some(Impossible::class("", ask, known.into_iter()))
}

fn queue(engine: &Engine, name: &QueueName) -> Option<Barred> {
    if let Some(problem) = engine.books().broken.get(name) {
        return Some(Barred::new("QueueNotAccepted", problem.clone()));
    }
    let unknown = !engine.state().queues.contains_key(name);
    unknown
        .then(|| Barred::new("NoSuchQueue", format!("queue {name} does not exist: apply a Queue of this name, or name another")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::ClassWish;
    use crate::event::Event;
    use crate::names::{Class, Namespace};
    use crate::state::{JobSpec, ModelSpec, Queue};
    use crate::time::At;

    fn engine(queues: &[(&str, Option<&str>)]) -> Engine {
        let mut engine = Engine::default();
        for (name, parent) in queues {
            let queue = Queue { parent: parent.map(QueueName::from), ..Queue::devices(4, None) };
            engine.apply(At(1), Event::QueueSet { name: (*name).into(), queue });
        }
        engine
    }

    fn told(engine: &mut Engine, spec: JobSpec) -> Option<Barred> {
        engine.apply(At(1), Event::JobSet { name: "j".into(), spec: spec.into() });
        engine.decide(At(2));
        job(engine, &"j".into())
    }

    #[test]
    fn a_job_is_told_what_is_not_there() {
        let mut circle = engine(&[("a", Some("b")), ("b", Some("a"))]);
        let barred = told(&mut circle, JobSpec::workers("a", 1, 1, Ask::default())).unwrap();
        assert_eq!(barred.word, "QueueNotAccepted");
        let barred = told(&mut circle, JobSpec::workers("c", 1, 1, Ask::default())).unwrap();
        assert_eq!(barred.word, "NoSuchQueue");
        assert!(barred.why.contains("apply a Queue of this name"), "{}", barred.why);
        let mut empty = engine(&[("a", None)]);
        let class = Ask { classes: vec![ClassWish::from(Class::from("H100"))], ..Ask::default() };
        let barred = told(&mut empty, JobSpec::workers("a", 1, 1, class)).unwrap();
        assert!(barred.why.contains("H100"), "{barred:?}");
    }

    #[test]
    fn a_model_is_told_what_is_not_there() {
        let mut engine = engine(&[("a", None)]);
        let mut told = |queue: &str| {
            let spec = ModelSpec {
                queue: queue.into(),
                namespace: Namespace::default(),
                priority: 0,
                ask: Ask::whole(1),
                slo_ms: 100,
                min: 0,
                max: 1,
                zero_after_ms: 1,
                max_rows: 1,
                max_sharers: 1,
                memory: None,
                generation: 0,
            };
            engine.apply(At(1), Event::ModelSet { name: "m".into(), spec });
            model(&engine, &"m".into()).unwrap()
        };
        assert_eq!(told("b").word, "NoSuchQueue");
        let no_class = told("a");
        assert_eq!(no_class.word, "NoSuchClass");
        assert!(no_class.why.contains("choose from none yet"), "{}", no_class.why);
    }
}
