//! `crd`: the kinds as Kubernetes wants them.

use tidegate_api::kinds;

use super::{Error, out};

pub fn run() -> Result<(), Error> {
    let mut text = String::new();
    for definition in kinds::definitions() {
        let yaml = serde_yaml::to_string(&definition).map_err(|e| Error::Input(format!("write a definition: {e}")))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    out::print(&text)
}
