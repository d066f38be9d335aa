//! What a pod's claims ask for together, and what they are given.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tidegate_core::ask::Amount;
use tidegate_core::names::{Class, DeviceId};
use tidegate_core::plan::Placed;

use super::shapes::{Marked, Shape, ShapeKey};
use super::{Asker, Devices};
use crate::facts::device::{PoolKey, parts};
use crate::facts::device_claim::{DeviceClaimFacts, DeviceUse, Request};
use crate::facts::node::NAME_LABEL;
use crate::facts::share::{self, Amounts};
use crate::facts::{PodFacts, PodKey};

/// Shapes that are kept though nobody asks for them: each is a mark on nodes, and finding it anew a question to every device.
const MOST_IDLE: usize = 32;

/// What a pod's claims ask for, in the engine's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::index) struct Wanted {
    pub amount: Amount,
    pub classes: Vec<Class>,
    /// The label of nodes that will do.
    pub mark: String,
}

/// What a claim is given by a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::index) struct Given {
    pub pod: PodKey,
    pub node: String,
    /// Each with the request that it is for.
    pub devices: Vec<(String, DeviceId)>,
    /// What it consumes of its one device, if it is given a share.
    pub share: Option<Amounts>,
    pub step: Step,
}

/// How far that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) enum Step {
    /// Volumes, or others that give the devices back, come first.
    Waits,
    /// It was asked for, and there is no answer.
    Asked,
    Done,
}

impl Devices {
    /// What the claims of a pod that waits ask for, or why nothing can be given; marks of nodes that change.
    pub fn wanted(&mut self, pod: &PodKey, uid: &str, used: &[DeviceUse]) -> (Result<Wanted, String>, Vec<Marked>) {
        let asker = Asker::Pod(pod.clone());
        match self.asked(uid, used) {
            Ok((key, count)) => self.wanted_of(&asker, &key, count),
            Err(why) => (Err(why), self.leave(&asker)),
        }
    }

    /// The same of a pod that will be made and will claim this.
    pub fn wanted_by(&mut self, asker: &Asker, request: &Request) -> (Result<Wanted, String>, Vec<Marked>) {
        self.wanted_of(asker, &ShapeKey::of(request), request.count)
    }

    fn wanted_of(&mut self, asker: &Asker, key: &ShapeKey, count: u32) -> (Result<Wanted, String>, Vec<Marked>) {
        let marks = self.enter(asker, key);
        let wanted = |shape: &Shape| {
            let classes = shape.answer()?.into_iter().map(Class::from).collect();
            if count != 1 && !key.share.is_empty() {
                let several = "asks for several shares of devices: a pod is given one, so let it ask for one";
                return Err(several.to_owned());
            }
            Ok(Wanted { amount: shape.share().unwrap_or(Amount::Whole(count)), classes, mark: shape.mark() })
        };
        (self.shapes.get(key).map_or_else(|| Err("asks for nothing".to_owned()), wanted), marks)
    }

    /// The one shape that all of a pod's requests have, and for how many devices they ask together.
    fn asked(&self, uid: &str, used: &[DeviceUse]) -> Result<(ShapeKey, u32), String> {
        let mut shape: Option<ShapeKey> = None;
        let mut count = 0_u32;
        for claim in self.named(uid, used)? {
            let told = |problem: &String| {
                format!("uses the ResourceClaim {}, which asks for what cannot be given: {problem}", claim.key)
            };
            for request in claim.requests.as_ref().map_err(told)? {
                let own = ShapeKey::of(request);
                if shape.get_or_insert_with(|| own.clone()) != &own {
                    let several = "uses ResourceClaims whose requests differ in DeviceClass, selectors, tolerations or capacity: a pod is given devices of one \
                                   kind yet, so let all its requests ask for the same";
                    return Err(several.to_owned());
                }
                count = count.saturating_add(request.count);
            }
        }
        shape.map(|shape| (shape, count)).ok_or_else(|| "asks for nothing".to_owned())
    }

    /// The claims that a pod names, each once.
    fn named(&self, uid: &str, used: &[DeviceUse]) -> Result<Vec<&DeviceClaimFacts>, String> {
        let mut all: Vec<&DeviceClaimFacts> = Vec::new();
        for used in used {
            let name = &used.name;
            let key = used.key.as_ref();
            let key =
                key.ok_or_else(|| format!("waits for its ResourceClaim `{name}`, which is not made from its template yet"))?;
            let told = |what: &str| format!("uses the ResourceClaim {key}, which {what}");
            let claim = self.claims.get(key).ok_or_else(|| told("does not exist: create it"))?;
            if used.own && claim.controller.as_deref() != Some(uid) {
                return Err(told(
                    "was not made for it alone, though it comes from a template: claims of pod groups are not given yet",
                ));
            }
            if claim.ending {
                return Err(told("is being deleted: wait for that, and create it again"));
            }
            if all.iter().all(|known| known.key != claim.key) {
                all.push(claim);
            }
        }
        Ok(all)
    }

    /// Which claim of a pod that waits has devices already. What we gave it for this very pod is being taken back: that is no reason to
    /// forget how often its start has failed.
    pub fn hindrance(&self, uid: &str, used: &[DeviceUse]) -> Option<String> {
        let claims = used.iter().filter_map(|used| self.claims.get(used.key.as_ref()?));
        let for_it = |claim: &DeviceClaimFacts| claim.ours && claim.reserved.iter().all(|(_, reserved)| reserved == uid);
        let allocated = claims.filter_map(|claim| Some((claim, claim.allocation.as_ref()?)));
        let (claim, allocation) = allocated.into_iter().find(|(claim, _)| !for_it(claim))?;
        let place = allocation.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        let whose = claim.reserved.first().map(|(pod, _)| format!(" for pod {pod}")).unwrap_or_default();
        Some(format!(
            "uses the ResourceClaim {}, which has its devices{place}{whose} until these are given back: a claim serves one pod at a time here",
            claim.key
        ))
    }

    /// What a worker's devices are for, by claim; or why the claims cannot be given these.
    pub fn given(&self, pod: &PodFacts, worker: &Placed) -> Result<Vec<(String, Given)>, String> {
        let used = pod.needs.as_ref().map_or(&[][..], |needs| &needs.devices);
        if used.is_empty() {
            return Ok(Vec::new());
        }
        let node = &worker.node.0;
        let shape = self.shape_of.get(&Asker::Pod(pod.key.clone())).and_then(|key| self.shapes.get(key));
        let suits = |device: &&DeviceId| shape.is_some_and(|shape| shape.suits(node, device));
        let mut left = worker.devices.iter().filter(suits);
        let mut all = Vec::new();
        for claim in self.named(&pod.uid, used)? {
            if claim.allocation.is_some() {
                return Err(format!("the devices of ResourceClaim {} are being taken back first", claim.key));
            }
            let mut devices = Vec::new();
            for request in claim.requests.iter().flatten() {
                devices.extend(left.by_ref().take(request.count as usize).map(|device| (request.name.clone(), device.clone())));
            }
            let one = claim.requests.iter().flatten().find(|request| !request.share.is_empty()).zip(devices.first());
            let consumed = one.map(|(request, (_, device))| self.consumed(node, device, request).ok_or(device)).transpose();
            let consumed = consumed.map_err(|device| format!("device {device} on node {node} gives no such share any more"))?;
            let wanted: u32 = claim.requests.iter().flatten().map(|request| request.count).sum();
            if devices.len() != wanted as usize {
                return Err(format!(
                    "the devices on node {node} that were chosen for ResourceClaim {} do not suit any more",
                    claim.key
                ));
            }
            all.push((
                claim.key.clone(),
                Given { pod: pod.key.clone(), node: node.to_string(), devices, share: consumed, step: Step::Waits },
            ));
        }
        Ok(all)
    }

    /// An allocation as the API has it.
    pub fn allocation(&self, claim: &DeviceClaimFacts, given: &Given) -> Value {
        let requests = || claim.requests.iter().flatten();
        let result = |(name, device): &(String, DeviceId)| {
            let request = requests().find(|request| request.name == *name);
            let mut result = self.result(request, name, device)?;
            if let Some(share) = &given.share {
                result["consumedCapacity"] = json!(share::quantities(share));
                // It has to be another one than that of other claims.
                result["shareID"] = json!(claim.uid);
            }
            Some(result)
        };
        let results: Vec<Value> = given.devices.iter().filter_map(result).collect();
        let classes: BTreeSet<&String> = requests().map(|request| &request.class).collect();
        let of_classes = classes.into_iter().filter_map(|class| self.classes.get(class)).flat_map(|class| &class.config);
        let config = of_classes.map(|config| sourced("FromClass", config));
        let config: Vec<Value> = config.chain(claim.config.iter().map(|config| sourced("FromClaim", config))).collect();
        let mut devices = json!({"results": results});
        if !config.is_empty() {
            devices["config"] = json!(config);
        }
        let field = json!({"key": NAME_LABEL, "operator": "In", "values": [given.node]});
        json!({"devices": devices, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}})
    }

    fn result(&self, request: Option<&Request>, name: &str, device: &DeviceId) -> Option<Value> {
        let (driver, pool, device) = parts(device)?;
        let mut result = json!({"request": name, "driver": driver, "pool": pool, "device": device});
        if let Some(tolerations) = request.map(|request| &request.told_tolerations).filter(|all| !all.is_empty()) {
            result["tolerations"] = json!(tolerations);
        }
        let key = PoolKey { driver: driver.to_owned(), name: pool.to_owned() };
        let slices = self.pools.get(&key).into_iter().flatten().filter_map(|slice| self.slices.get(slice));
        let newest =
            slices.filter(|slice| slice.devices.iter().any(|known| known.name == device)).max_by_key(|slice| slice.generation);
        if let Some(skips) = newest.and_then(|slice| slice.skips.as_ref()) {
            result["skipNodeOperations"] = json!(skips);
        }
        Some(result)
    }

    /// What a request for a share consumes of a device.
    fn consumed(&self, node: &str, device: &DeviceId, request: &Request) -> Option<Amounts> {
        self.nodes.get(node)?.told.get(device)?.shared.as_ref()?.consumed(&request.share)
    }

    /// Somebody asks for a shape, and for no other.
    fn enter(&mut self, asker: &Asker, key: &ShapeKey) -> Vec<Marked> {
        if self.shape_of.get(asker) == Some(key) {
            return Vec::new();
        }
        let mut marks = self.leave(asker);
        self.shape_of.insert(asker.clone(), key.clone());
        let fresh = !self.shapes.contains_key(key);
        if fresh {
            self.numbers += 1;
            self.shapes.insert(key.clone(), Shape::new(key.clone(), self.numbers));
        }
        if let Some(shape) = self.shapes.get_mut(key) {
            self.due |= shape.users.is_empty();
            shape.users.insert(asker.clone());
        }
        if fresh {
            marks.extend(self.evaluate(key));
        }
        marks
    }

    /// Somebody asks for no shape any more. The next one is often alike, so some for which nobody asks are kept, and the oldest of more
    /// are forgotten.
    pub fn leave(&mut self, asker: &Asker) -> Vec<Marked> {
        let Some(key) = self.shape_of.remove(asker) else { return Vec::new() };
        if let Some(shape) = self.shapes.get_mut(&key) {
            shape.users.remove(asker);
        }
        let idle = self.shapes.iter().filter(|(_, shape)| shape.users.is_empty());
        let mut idle: Vec<_> = idle.map(|(key, shape)| (shape.number, key.clone())).collect();
        if idle.len() <= MOST_IDLE {
            return Vec::new();
        }
        idle.sort();
        let oldest = idle.into_iter().next().and_then(|(_, key)| self.shapes.remove(&key));
        oldest.map(|shape| shape.unmarked()).unwrap_or_default()
    }
}

/// What drivers are told, with whose words these are.
fn sourced(source: &str, config: &Value) -> Value {
    let mut all: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    all.insert("source".to_owned(), json!(source));
    Value::Object(all)
}
