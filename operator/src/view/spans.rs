//! Who held which GPU when. What holds one now says since when; what has ended was noted as it did.

use std::collections::BTreeSet;

use tidegate_api::view::{Device, Span, Timeline};
use tidegate_core::holdings::{Claim, Holder};
use tidegate_core::names::DeviceId;
use tidegate_core::time::At;

use super::{Devices, Page};
use crate::world::Scene;

/// Spans of the GPUs that the page shows and that had not ended before `since_ms`.
pub fn timeline(scene: &Scene, page: &Page, since_ms: u64) -> Timeline {
    let shown: BTreeSet<&str> = page.state.devices.iter().map(|device| device.id.as_str()).collect();
    let ended = scene.ended.iter().filter(|span| span.to_ms.is_none_or(|to| to >= since_ms));
    let ended = ended.filter(|span| shown.contains(span.device.as_str())).map(|span| Span::clone(span));
    Timeline { now_ms: scene.at.0, spans: ended.chain(page.spans.iter().cloned()).collect() }
}

/// Spans that have not ended.
pub(super) fn open(devices: &Devices, shown: &[Device]) -> Vec<Span> {
    let of = |device: &Device| {
        let id = DeviceId::from(device.id.as_str());
        devices.claims(&id).filter_map(|claim| span(devices, &id, claim)).collect::<Vec<_>>()
    };
    shown.iter().flat_map(of).collect()
}

fn span(devices: &Devices, device: &DeviceId, claim: &Claim) -> Option<Span> {
    let (kind, name, At(from_ms)) = match &claim.holder {
        Holder::Job(name) => ("job", name.as_str(), devices.state.jobs.get(name)?.run()?.since),
        Holder::Replica(model, id) => ("model", model.as_str(), devices.state.replicas.get(id)?.since),
    };
    let lent = devices.borrowers.contains(&claim.queue);
    Some(Span { device: device.to_string(), kind: kind.to_owned(), name: name.to_owned(), lent, from_ms, to_ms: None })
}
