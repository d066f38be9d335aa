//! `crd`: the kinds as Kubernetes wants them, and as their pages show them.

use tidegate_api::kinds::{self, reference};

use super::{Error, out};

/// Arguments of `crd`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Prints the made part of the page of a kind, for `cargo xtask docs`.
    #[arg(long, value_name = "KIND", hide = true)]
    docs: Option<String>,
}

pub fn run(Args { docs }: Args) -> Result<(), Error> {
    let Some(kind) = docs else { return definitions() };
    let page = reference::page(&kind);
    out::print(&page.ok_or_else(|| {
        Error::Input(format!("--docs {kind:?} is not a kind; write Pool, Queue, TrainingJob, Model or GpuNode"))
    })?)
}

fn definitions() -> Result<(), Error> {
    let mut text = String::new();
    for definition in kinds::definitions() {
        let yaml = serde_yaml::to_string(&definition).map_err(|e| Error::Input(format!("write a definition: {e}")))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    out::print(&text)
}
