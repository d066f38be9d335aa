//! Names as types, so that a queue is never taken for a job. They are shared: a copy of a name costs a counter.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[serde(transparent)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }
    )*};
}

names! {
    /// One device: a GPU's UUID, or `gpu-0` for a simulated one.
    DeviceId,
    /// A machine.
    NodeName,
    /// A kind of device, for instance `H100-80GB`.
    Class,
    /// A node of the quota.
    QueueName,
    /// Where work is submitted; empty where a world has none.
    Namespace,
    /// A training job.
    JobName,
    /// A model.
    ModelName,
    /// One replica of a model, never reused.
    ReplicaId,
}
