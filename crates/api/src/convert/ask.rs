//! What a worker or replica asks of a node.

use tidegate_core::ask::{Amount, Ask, ClassWish};
use tidegate_core::mig::Profile;
use tidegate_core::names::Class;

use super::labels;
use crate::kinds::{ClassSpeed, GpuAsk, MigProfile, NodeAffinity};

/// What it asks of devices, and on which nodes.
pub fn ask(gpu: &GpuAsk, nodes: Option<&NodeAffinity>) -> Ask {
    let fast =
        |speed: &ClassSpeed| ClassWish { class: Class::from(speed.class.as_str()), speed_milli: speed.speed_milli, devices: 0 };
    let plain = gpu.classes.iter().map(|class| ClassWish::from(Class::from(class.as_str())));
    let classes = plain.chain(gpu.class_speeds.iter().map(fast)).collect();
    Ask { amount: amount(gpu), classes, affinity: nodes.map(labels::affinity).unwrap_or_default(), ..Ask::default() }
}

/// What a worker asks for, with CPU in thousandths of a core and memory in MiB.
pub fn worker(gpu: &GpuAsk, nodes: Option<&NodeAffinity>, cpu_milli: u32, memory_mib: u32) -> Ask {
    Ask { cpu_milli: u64::from(cpu_milli), memory_mib: u64::from(memory_mib), ..ask(gpu, nodes) }
}

fn amount(gpu: &GpuAsk) -> Amount {
    match *gpu {
        GpuAsk { memory_mib: Some(mib), .. } => Amount::MemoryMib(u64::from(mib)),
        GpuAsk { milli: Some(milli), .. } => Amount::Milli(milli),
        GpuAsk { mig: Some(profile), .. } => Amount::Mig(mig(profile)),
        GpuAsk { count: Some(0), .. } => Amount::None,
        GpuAsk { count, .. } => Amount::Whole(count.unwrap_or(1)),
    }
}

fn mig(profile: MigProfile) -> Profile {
    match profile {
        MigProfile::G1 => Profile::G1,
        MigProfile::G1Double => Profile::G1Plus,
        MigProfile::G2 => Profile::G2,
        MigProfile::G3 => Profile::G3,
        MigProfile::G4 => Profile::G4,
        MigProfile::G7 => Profile::G7,
    }
}
