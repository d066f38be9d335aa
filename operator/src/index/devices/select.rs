//! Selectors of devices: expressions in CEL of which Kubernetes says what they see (`device.driver`, `device.attributes["domain"].name`,
//! `device.capacity["domain"].name`).
//!
//! What the API server lets in was compiled there, by another implementation of the language. What this one does not know (`cel.bind`)
//! is told as a sentence, and a fault of it is no fault of the operator: users' expressions stop nobody.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::{Context, Program, Value};

use crate::facts::device::{Attribute, DeviceFacts};

/// One expression, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    text: String,
    program: Arc<Program>,
}

impl Selector {
    /// Or why it cannot be read.
    pub fn of(text: &str) -> Result<Self, String> {
        let program = guarded(|| Program::compile(text).map_err(|error| error.to_string()));
        let program = program.map_err(|error| format!("selector `{text}` cannot be read: {error}"))?;
        Ok(Self { text: text.to_owned(), program: Arc::new(program) })
    }

    /// Domains that it may name: Kubernetes has an empty map for each that a device has nothing of. Texts that are no domains do no harm.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.text.split(['"', '\'']).skip(1).step_by(2)
    }
}

/// What all selectors share: the functions.
pub(super) struct Bench {
    root: Context<'static>,
    quantity: Option<Program>,
    version: Option<Program>,
}

impl Bench {
    pub fn new() -> Self {
        let function = |text: &str| Program::compile(text).ok();
        Self { root: Context::default().with_all(), quantity: function("quantity(text)"), version: function("semver(text)") }
    }

    /// A device as selectors see it, with an empty map for each of these domains that it has nothing of.
    pub fn device(&self, driver: &str, device: &DeviceFacts, domains: &BTreeSet<&str>) -> Result<Value, String> {
        let mut attributes = Domains::of(domains);
        for (name, attribute) in &device.attributes {
            attributes.put(driver, name, self.value(attribute)?);
        }
        let mut capacity = Domains::of(domains);
        for (name, amount) in &device.capacity {
            capacity.put(driver, name, self.made(self.quantity.as_ref(), amount)?);
        }
        let fields = [
            ("driver", Value::from(driver)),
            ("attributes", attributes.value()),
            ("capacity", capacity.value()),
            ("allowMultipleAllocations", Value::Bool(device.several)),
        ];
        Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<_, _>>().into())
    }

    /// Whether a selector holds for a device.
    pub fn holds(&self, selector: &Selector, device: &Value) -> Result<bool, String> {
        let told = |error: String| format!("selector `{}` cannot be evaluated: {error}", selector.text);
        let answer = guarded(|| {
            let mut scope = self.root.new_inner_scope();
            scope.add_variable_from_value("device", device.clone());
            selector.program.execute(&scope).map_err(|error| error.to_string())
        });
        match answer.map_err(told)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(told(format!("it is of type {}, not bool", other.type_of()))),
        }
    }

    fn value(&self, attribute: &Attribute) -> Result<Value, String> {
        Ok(match attribute {
            Attribute::Text(text) => Value::from(text.as_str()),
            Attribute::Int(number) => Value::Int(*number),
            Attribute::Bool(bool) => Value::Bool(*bool),
            Attribute::Version(version) => self.made(self.version.as_ref(), version)?,
            Attribute::List(all) => Value::List(Arc::new(all.iter().map(|one| self.value(one)).collect::<Result<_, _>>()?)),
        })
    }

    /// A value of a type that only its function makes.
    fn made(&self, function: Option<&Program>, text: &str) -> Result<Value, String> {
        guarded(|| {
            let function = function.ok_or("no such function")?;
            let mut scope = self.root.new_inner_scope();
            scope.add_variable_from_value("text", text);
            function.execute(&scope).map_err(|error| error.to_string())
        })
    }
}

/// Names by domain.
struct Domains(HashMap<String, HashMap<String, Value>>);

impl Domains {
    fn of(empty: &BTreeSet<&str>) -> Self {
        Self(empty.iter().map(|domain| ((*domain).to_owned(), HashMap::new())).collect())
    }

    /// What has no domain is the driver's.
    fn put(&mut self, driver: &str, name: &str, value: Value) {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        self.0.entry(domain.to_owned()).or_default().insert(name.to_owned(), value);
    }

    fn value(self) -> Value {
        self.0.into_iter().map(|(domain, names)| (domain, Value::from(names))).collect::<HashMap<_, _>>().into()
    }
}

/// The library computes with what users write; where it panics (a number beyond its bounds), the expression has failed and nothing
/// else: nothing of ours is changed in it.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it is beyond what can be computed here".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::facts::device::SliceFacts;

    fn holds(text: &str) -> Result<bool, String> {
        let slice: Json = json!({
            "metadata": {"name": "s"},
            "spec": {
                "driver": "gpu.nvidia.com", "nodeName": "n1", "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
                "devices": [{
                    "name": "gpu-0",
                    "attributes": {
                        "productName": {"string": "NVIDIA H100"}, "index": {"int": 3}, "ecc": {"bool": true},
                        "driverVersion": {"version": "570.86.15"}, "resource.kubernetes.io/pcieRoot": {"string": "pci0000:00"},
                        "links": {"ints": [1, 2]},
                    },
                    "capacity": {"memory": {"value": "80Gi"}},
                }],
            },
        });
        let facts = SliceFacts::of(&serde_json::from_value(slice).unwrap());
        let selector = Selector::of(text)?;
        let bench = Bench::new();
        let device = bench.device("gpu.nvidia.com", &facts.devices[0], &selector.domains().collect())?;
        bench.holds(&selector, &device)
    }

    #[test]
    fn selectors_see_what_kubernetes_shows_them() {
        for text in [
            "device.driver == 'gpu.nvidia.com'",
            "device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100' && device.attributes['gpu.nvidia.com'].ecc",
            "device.attributes['gpu.nvidia.com'].productName.lowerAscii().matches('^.*h100.*$')",
            "device.attributes['gpu.nvidia.com'].index >= 3",
            "device.attributes['resource.kubernetes.io'].pcieRoot == 'pci0000:00'",
            "device.attributes['gpu.nvidia.com'].driverVersion.isGreaterThan(semver('570.0.0'))",
            "device.attributes['gpu.nvidia.com'].driverVersion.major() == 570",
            "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0",
            "device.capacity['gpu.nvidia.com'].memory.isGreaterThan(quantity('79Gi'))",
            "2 in device.attributes['gpu.nvidia.com'].links",
            "'productName' in device.attributes['gpu.nvidia.com']",
            "has(device.attributes['gpu.nvidia.com'].index)",
            "device.allowMultipleAllocations == false",
        ] {
            assert_eq!(holds(text), Ok(true), "{text}");
        }
        for text in [
            "device.capacity['gpu.nvidia.com'].memory.isLessThan(quantity('80Gi'))",
            "has(device.attributes['other.dev'].model)",
            "'model' in device.attributes[\"other.dev\"]",
        ] {
            assert_eq!(holds(text), Ok(false), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_told_as_a_sentence() {
        let why = |text: &str| holds(text).unwrap_err();
        assert!(why("device.driver ==").contains("cannot be read"));
        assert!(why("device.attributes['gpu.nvidia.com'].nothing == 1").contains("nothing"));
        assert!(why("device.attributes['gpu.nvidia.com'].index").contains("not bool"));
        assert!(why("cel.bind(x, device.driver, x == 'a')").contains("cannot be"));
        assert!(
            holds("quantity('1e99').isGreaterThan(device.capacity['gpu.nvidia.com'].memory)").is_err() || !cfg!(debug_assertions)
        );
    }
}
