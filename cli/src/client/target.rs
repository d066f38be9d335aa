//! `KIND/NAME`, the way in which a user points at something.

use std::fmt;

/// Something that can be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its name, safe in the path of a URL.
    pub name: String,
}

/// Kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A training job.
    Job,
    /// A model.
    Model,
    /// A queue.
    Queue,
    /// A pool.
    Pool,
    /// A device.
    Gpu,
}

impl Kind {
    /// As users and the API's views write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Model => "model",
            Self::Queue => "queue",
            Self::Pool => "pool",
            Self::Gpu => "gpu",
        }
    }

    /// As the API's paths write it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Job => "jobs",
            Self::Model => "models",
            Self::Queue => "queues",
            Self::Pool => "pools",
            Self::Gpu => "devices",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "job" | "jobs" | "trainingjob" | "trainingjobs" => Self::Job,
            "model" | "models" => Self::Model,
            "queue" | "queues" => Self::Queue,
            "pool" | "pools" => Self::Pool,
            "gpu" | "gpus" | "device" | "devices" => Self::Gpu,
            _ => return None,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.word(), self.name)
    }
}

/// For commands on whatever a manifest can describe.
pub fn described(text: &str) -> Result<Target, String> {
    parse(text, &[Kind::Job, Kind::Model, Kind::Queue, Kind::Pool])
}

/// For commands on what runs.
pub fn workload(text: &str) -> Result<Target, String> {
    parse(text, &[Kind::Job, Kind::Model])
}

/// For commands on jobs.
pub fn job(text: &str) -> Result<Target, String> {
    parse(text, &[Kind::Job])
}

/// For commands on devices.
pub fn gpu(text: &str) -> Result<Target, String> {
    parse(text, &[Kind::Gpu])
}

fn parse(text: &str, allowed: &[Kind]) -> Result<Target, String> {
    let remedy = || allowed.iter().map(|k| format!("{}/NAME", k.word())).collect::<Vec<_>>().join(" or ");
    let (word, name) = text.split_once('/').ok_or_else(|| format!("write it as {}", remedy()))?;
    let kind = Kind::parse(word).filter(|k| allowed.contains(k));
    let kind = kind.ok_or_else(|| format!("{word:?} is not possible here; write it as {}", remedy()))?;
    // What Kubernetes allows in names and NVML in identities; nothing that a URL would read otherwise.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if name.is_empty() || !name.chars().all(plain) || name.chars().all(|c| c == '.') {
        return Err(format!("{name:?} is not a name; letters, digits, '-' and '.' make one"));
    }
    Ok(Target { kind, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_and_a_name_are_told_apart() {
        assert_eq!(workload("job/night").unwrap(), Target { kind: Kind::Job, name: "night".to_owned() });
        assert_eq!(workload("TrainingJob/night").unwrap().kind, Kind::Job);
        assert_eq!(described("queues/research").unwrap().to_string(), "queue/research");
        assert_eq!(gpu("gpu/GPU-00000001-fa4e-4000-8000-000000000000").unwrap().kind.path(), "devices");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_remedy() {
        assert_eq!(workload("night").unwrap_err(), "write it as job/NAME or model/NAME");
        assert_eq!(job("model/minilm").unwrap_err(), "\"model\" is not possible here; write it as job/NAME");
        assert_eq!(workload("pod/x").unwrap_err(), "\"pod\" is not possible here; write it as job/NAME or model/NAME");
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_url() {
        for name in ["", "..", "a/b", "a?b", "a b", "%2e%2e", "ü"] {
            assert!(workload(&format!("job/{name}")).is_err(), "{name:?}");
        }
    }
}
