//! Plays the scenarios of the table on a cluster, one after the other; each leaves the cluster empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_api::kinds::Queue;
use tidegate_tests::control_plane::kwok::{AT_ONCE, DONE, GPUS};
use tidegate_tests::control_plane::witness::check_held;
use tidegate_tests::control_plane::{ControlPlane, SOON, TEAM};
use tidegate_tests::harness::until;

use crate::belief;
use crate::table::{Bond, Comers, Enders, Expected, Scenario, Step};

/// Label of a scenario's pods: as they are called in the table.
const NAME: &str = "test.tidegate.dev/name";

/// A cluster with an operator.
pub struct Board {
    pub plane: ControlPlane,
    pub port: u16,
    /// Of each node.
    labels: BTreeMap<String, BTreeMap<String, String>>,
    priorities: BTreeSet<i32>,
}

impl Board {
    pub async fn new(plane: ControlPlane, port: u16) -> Result<Self> {
        let nodes = Api::<Node>::all(plane.client.clone()).list(&ListParams::default()).await?;
        let labels = nodes.into_iter().map(|node| (node.name_any(), node.labels().clone())).collect();
        Ok(Self { plane, port, labels, priorities: BTreeSet::new() })
    }

    /// Plays it, and leaves the cluster empty for the next one whatever has come of it.
    pub async fn play(&mut self, scenario: &Scenario) -> Result<()> {
        let began = Instant::now();
        let played = self.steps(scenario).await;
        let cleared = self.clear().await.context("empty the cluster");
        eprintln!("{:5} ms  {}", began.elapsed().as_millis(), scenario.name);
        played.and(cleared)
    }

    async fn steps(&mut self, scenario: &Scenario) -> Result<()> {
        let mut come = BTreeMap::new();
        for step in &scenario.steps {
            match step {
                Step::Queues(queues) => {
                    for queue in queues {
                        self.queue(queue).await?;
                    }
                }
                Step::Comes(all) => {
                    for comers in all {
                        self.come(comers, come.entry(comers.name.clone()).or_default()).await?;
                    }
                }
                Step::Ends(all) => {
                    for enders in all {
                        self.end(enders).await?;
                    }
                }
                Step::Expect(all) => self.expect(all).await?,
            }
        }
        Ok(())
    }

    fn objects<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.plane.client.clone(), TEAM)
    }

    async fn make<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        Ok(self.objects().create(&PostParams::default(), &serde_json::from_value::<K>(object)?).await?)
    }

    async fn queue(&self, queue: &crate::table::Queue) -> Result<()> {
        let object: Queue = serde_json::from_value(json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Queue", "metadata": {"name": queue.name},
            "spec": {"nominal": queue.gpus, "parent": queue.parent, "borrowingLimit": queue.borrow},
        }))?;
        Api::all(self.plane.client.clone()).create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// The API server takes pods of a class once it has seen that class itself, a moment after it took it.
    async fn until_admitted(&self, priority: i32) -> Result<()> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "probe"},
            "spec": {"priorityClassName": class_of(priority), "containers": [{"name": "main", "image": "none"}]},
        }))?;
        let (pods, dry) = (self.plane.pods(), PostParams { dry_run: true, ..PostParams::default() });
        let look = || async { Ok(pods.create(&dry, &pod).await.ok().map(drop)) };
        until("pods of a new class to be admitted", SOON, look).await
    }

    /// Makes pods, numbered after those of the same name that are there, and what they need.
    async fn come(&mut self, comers: &Comers, before: &mut u32) -> Result<()> {
        if let Some(priority) = comers.priority.filter(|priority| self.priorities.insert(*priority)) {
            let class: PriorityClass =
                serde_json::from_value(json!({"metadata": {"name": class_of(priority)}, "value": priority}))?;
            Api::all(self.plane.client.clone()).create(&PostParams::default(), &class).await?;
            self.until_admitted(priority).await?;
        }
        let numbers = *before..*before + comers.count;
        let mut template = template(comers);
        if let Some((bond, size)) = comers.gang {
            self.bind_together(comers, bond, size, *before == 0, &mut template).await?;
        }
        *before += comers.count;
        let this = &*self;
        let make = |number: u32| {
            let mut pod = template.clone();
            async move {
                let name = format!("{}-{number}", comers.name);
                pod["metadata"]["name"] = json!(name);
                if comers.claims {
                    let exactly = json!({"deviceClassName": "gpu", "count": comers.gpus});
                    this.make::<ResourceClaim>(json!({
                        "metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
                    }))
                    .await?;
                    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": name}]);
                }
                this.make::<Pod>(pod).await.map(drop)
            }
        };
        stream::iter(numbers).map(make).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// Says in the pods' template of which gang they are, and makes what they name if it is not there.
    async fn bind_together(&self, comers: &Comers, bond: Bond, size: u32, first: bool, pod: &mut Value) -> Result<()> {
        let name = &comers.name;
        match bond {
            Bond::PodGroup => {
                if first {
                    let policy = json!({"gang": {"minCount": size}});
                    let group = json!({"metadata": {"name": name}, "spec": {"schedulingPolicy": policy}});
                    self.make::<PodGroup>(group).await?;
                }
                pod["spec"]["schedulingGroup"] = json!({"podGroupName": name});
                pod["metadata"]["annotations"][belief::GROUP_SIZE] = json!(size.to_string());
            }
            Bond::Job => {
                let spec = json!({"parallelism": size, "completions": size, "template": {"spec": {
                    "restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}],
                }}});
                // As the Job controller makes them.
                let job = self.make::<Job>(json!({"metadata": {"name": name}, "spec": spec})).await?;
                let owner =
                    json!({"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.metadata.uid, "controller": true});
                pod["metadata"]["ownerReferences"] = json!([owner]);
                pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(size.to_string());
            }
            Bond::Label => {
                pod["metadata"]["labels"]["tidegate.dev/gang"] = json!(name);
                pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(size.to_string());
            }
        }
        Ok(())
    }

    /// Pods of the table's name.
    async fn pods_of(&self, name: &str) -> Result<Vec<Pod>> {
        Ok(self.plane.pods().list(&ListParams::default().labels(&format!("{NAME}={name}"))).await?.items)
    }

    /// The first that run have done their work, and KWOK says so.
    async fn end(&self, enders: &Enders) -> Result<()> {
        let pods = self.pods_of(&enders.name).await?;
        let ends: Vec<String> = pods.iter().filter(|pod| runs(pod)).map(ResourceExt::name_any).collect();
        let count = enders.count.unwrap_or(ends.len());
        ensure!(count > 0 && count <= ends.len(), "{} of {} run, and {count} are to end", ends.len(), enders.name);
        let done = Patch::Merge(json!({"metadata": {"annotations": {DONE: "true"}}}));
        for name in &ends[..count] {
            self.plane.pods().patch(name, &PatchParams::default(), &done).await?;
        }
        Ok(())
    }

    /// All of that comes to be; then it is checked what must always be so.
    async fn expect(&self, all: &[Expected]) -> Result<()> {
        for expected in all {
            let found = std::cell::RefCell::new(String::new());
            let look = || async {
                let pods = self.pods_of(expected.name()).await?;
                *found.borrow_mut() = told(&pods);
                Ok(self.is_so(expected, &pods).then_some(()))
            };
            let seen = until(&format!("`{expected}`"), SOON, look).await;
            seen.with_context(|| found.borrow().clone())?;
        }
        belief::check(&self.plane, self.port).await?;
        let pods = self.plane.list().await?;
        // Nothing of it was only for a moment.
        for expected in all {
            let of_it: Vec<Pod> =
                pods.iter().filter(|pod| pod.labels().get(NAME).is_some_and(|name| name == expected.name())).cloned().collect();
            ensure!(self.is_so(expected, &of_it), "`{expected}` is so no more: {}", told(&of_it));
        }
        check_held(&pods, GPUS)?;
        belief::check_gangs(&pods)
    }

    fn is_so(&self, expected: &Expected, pods: &[Pod]) -> bool {
        match expected {
            Expected::Runs { count, places, .. } => {
                let running: Vec<&Pod> = pods.iter().filter(|pod| runs(pod)).collect();
                // Who is told to end runs until it has ended.
                let at = |level: &str| {
                    let nodes = running.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_ref());
                    nodes.filter_map(|node| self.labels.get(node)?.get(level)).collect::<BTreeSet<_>>().len()
                };
                running.len() == *count && places.as_ref().is_none_or(|(places, level)| at(level) == *places)
            }
            Expected::Waits { count, words, .. } => {
                let waiting: Vec<&Pod> = pods.iter().filter(|pod| waits(pod)).collect();
                let told = |pod: &&Pod| why(pod).is_some_and(|why| why.contains(words));
                waiting.len() == *count && waiting.iter().all(told)
            }
        }
    }

    /// Deletes all that the scenario has made, and waits until the engine knows.
    async fn clear(&self) -> Result<()> {
        let (now, all) = (DeleteParams::default().grace_period(0), ListParams::default());
        self.plane.pods().delete_collection(&now, &all).await?;
        self.objects::<Job>().delete_collection(&DeleteParams::background(), &all).await?;
        self.objects::<PodGroup>().delete_collection(&now, &all).await?;
        self.objects::<ResourceClaim>().delete_collection(&now, &all).await?;
        Api::<Queue>::all(self.plane.client.clone()).delete_collection(&now, &all).await?;
        let gone = || async {
            let left = self.plane.list().await?.len() + self.objects::<ResourceClaim>().list(&all).await?.items.len();
            Ok((left == 0).then_some(()))
        };
        until("pods and claims to be gone", SOON, gone).await?;
        belief::check(&self.plane, self.port).await
    }
}

fn class_of(priority: i32) -> String {
    format!("priority-{priority}").replace("--", "-minus-")
}

fn template(comers: &Comers) -> Value {
    let mut pod = json!({
        "metadata": {"labels": {"tidegate.dev/queue": comers.queue, NAME: comers.name}, "annotations": {}},
        "spec": {
            "schedulerName": "tidegate", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "1"}}}],
        },
    });
    let resources = if comers.claims {
        json!({"requests": {"cpu": "1"}, "claims": [{"name": "gpu"}]})
    } else {
        json!({"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": comers.gpus.to_string()}})
    };
    pod["spec"]["containers"][0]["resources"] = resources;
    if let Some(priority) = comers.priority {
        pod["spec"]["priorityClassName"] = json!(class_of(priority));
    }
    if let Some((key, value)) = &comers.on {
        pod["spec"]["nodeSelector"][key] = json!(value);
    }
    let annotations = &mut pod["metadata"]["annotations"];
    if let Some((annotation, level)) = &comers.place {
        annotations[*annotation] = json!(level);
    }
    if let Some(seconds) = comers.seconds {
        annotations["tidegate.dev/expected-seconds"] = json!(seconds.to_string());
    }
    if comers.pinned {
        annotations["tidegate.dev/preemptible"] = json!("false");
    }
    pod
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn runs(pod: &Pod) -> bool {
    phase(pod) == Some("Running")
}

fn waits(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) && pod.metadata.deletion_timestamp.is_none()
}

/// What it is told why it waits.
fn why(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    scheduled.message.as_deref()
}

/// Pods as a failed test shows them: alike ones once.
fn told(pods: &[Pod]) -> String {
    let mut lines = BTreeMap::<String, u32>::new();
    for pod in pods {
        let bound = if waits(pod) { "not bound" } else { "bound" };
        let line = format!("{bound}, {}, {}", phase(pod).unwrap_or("no phase"), why(pod).unwrap_or("told nothing"));
        *lines.entry(line).or_default() += 1;
    }
    let lines = lines.iter().map(|(line, count)| format!("{count} pods: {line}"));
    lines.collect::<Vec<_>>().join("\n")
}
