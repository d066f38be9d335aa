//! Labels and annotations by which pods that are not ours take part: what a pod's own fields cannot say.

use std::collections::BTreeMap;

/// The most characters of a label's value; names may have more.
const LONGEST_VALUE: usize = 63;

/// A name as the value of a label.
pub fn value(name: &str) -> Option<String> {
    (name.len() <= LONGEST_VALUE).then(|| name.to_owned())
}

/// Value of `schedulerName` of pods that Tidegate places.
pub const SCHEDULER: &str = "tidegate";

/// Label: the queue whose quota the pod uses.
pub const QUEUE: &str = "tidegate.dev/queue";
/// Label: pods of one namespace with the same value are one gang: as many as [`GANG_SIZE`] start together, or none.
pub const GANG: &str = "tidegate.dev/gang";
/// Annotation on each pod of a gang: how many of it must be there and start together. Without [`GANG`] the pods of one controller
/// are the gang.
pub const GANG_SIZE: &str = "tidegate.dev/gang-size";
/// Annotation: a level of the pool's topology in one domain of which all pods of the gang must be.
pub const REQUIRED_TOPOLOGY: &str = "tidegate.dev/required-topology";
/// Annotation: the same, where they would rather be.
pub const PREFERRED_TOPOLOGY: &str = "tidegate.dev/preferred-topology";
/// Annotation: GPU classes that will do, separated by commas.
pub const GPU_CLASSES: &str = "tidegate.dev/gpu-classes";
/// Annotation: `false` for a pod that is not stopped for others; then it uses only what is its queue's own.
pub const PREEMPTIBLE: &str = "tidegate.dev/preemptible";
/// Annotation: an estimate of its run time in seconds.
pub const EXPECTED_SECONDS: &str = "tidegate.dev/expected-seconds";
/// Label of a worker's pod: the uid of its `TrainingJob`. Its headless service selects by it.
pub const TRAINING_JOB: &str = "tidegate.dev/training-job-uid";
/// Label of a worker's pod, for people: the name of its `TrainingJob`, if it is short enough for a label ([`value`]).
pub const TRAINING_JOB_NAME: &str = "tidegate.dev/training-job";
/// Annotations of a worker's pod: which attempt, which worker of it, in which of the job's groups.
pub const ATTEMPT: &str = "tidegate.dev/attempt";
/// See [`ATTEMPT`].
pub const RANK: &str = "tidegate.dev/rank";
/// See [`ATTEMPT`].
pub const GROUP: &str = "tidegate.dev/group";
/// See [`ATTEMPT`]: how many workers the attempt has.
pub const WORLD_SIZE: &str = "tidegate.dev/world-size";
/// Label of a replica's pod: the uid of its `Model`.
pub const MODEL: &str = "tidegate.dev/model-uid";
/// Label of a replica's pod, for people: the name of its `Model`, if it is short enough for a label ([`value`]).
pub const MODEL_NAME: &str = "tidegate.dev/model";
/// Annotations of a replica's pod: which replica it is, of which generation, and what it was made from, in short.
pub const REPLICA: &str = "tidegate.dev/replica";
/// See [`REPLICA`].
pub const GENERATION: &str = "tidegate.dev/model-generation";
/// See [`REPLICA`].
pub const MADE_FROM: &str = "tidegate.dev/made-from";
/// Label of a node: its GPUs are simulated (`true`), so that models keep the pace that they declare.
pub const SIMULATED: &str = "tidegate.dev/simulated-gpus";
/// Annotation of a `ResourceClaim`: Tidegate gave it its devices, and takes them back when its pods are over.
pub const ALLOCATED: &str = "tidegate.dev/allocated";
/// Annotation of a pod, from its template: whose seat it takes, as `KIND.GROUP/NAME/UID` of a suspended object that was started.
/// [`GROUP`] beside it says which template of that object it is of.
pub const SEAT_OF: &str = "tidegate.dev/seat-of";
/// Scheduling gate of such a pod, if it is for another scheduler, until it is told its node.
pub const SEAT_GATE: &str = "tidegate.dev/seat";
/// Annotation of such an object while it runs: where its seats are.
pub const SEATS: &str = "tidegate.dev/seats";
/// Label, Kueue's: the `LocalQueue` of an object that waits.
pub const KUEUE_QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Label, Kueue's: the `WorkloadPriorityClass` of an object that waits.
pub const KUEUE_PRIORITY: &str = "kueue.x-k8s.io/priority-class";
/// Annotations, Kueue's, of a pod template: see [`REQUIRED_TOPOLOGY`] and [`PREFERRED_TOPOLOGY`].
pub const KUEUE_REQUIRED_TOPOLOGY: &str = "kueue.x-k8s.io/podset-required-topology";
/// See [`KUEUE_REQUIRED_TOPOLOGY`].
pub const KUEUE_PREFERRED_TOPOLOGY: &str = "kueue.x-k8s.io/podset-preferred-topology";
/// Label of a node: the class of its GPUs, where no node agent tells it.
pub const GPU_CLASS: &str = "tidegate.dev/gpu-class";
/// Label of a node: the product name of its GPUs, as GPU feature discovery writes it.
pub const GPU_PRODUCT: &str = "nvidia.com/gpu.product";

/// What classes of MIG instances begin with that nodes give away by count: a resource's name is `nvidia.com/` and the class.
pub const MIG_CLASS: &str = "mig-";

/// The class of a node's GPUs by its labels: ours before that of GPU feature discovery, which begins with the maker's name.
pub fn gpu_class(labels: &BTreeMap<String, String>) -> Option<String> {
    let product = || labels.get(GPU_PRODUCT).map(|product| product.trim_start_matches("NVIDIA-").to_owned());
    labels.get(GPU_CLASS).cloned().or_else(product)
}
