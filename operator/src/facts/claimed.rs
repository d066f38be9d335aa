//! Devices that a pod which Tidegate makes claims by name: in a `ResourceClaim` of its own, which kube-controller-manager makes from a
//! template that is made first.

use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec, ResourceClaim as Used, ResourceRequirements};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaimSpec, ResourceClaimTemplate, ResourceClaimTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use super::device_claim::Request;

/// What the pod and its template call the claim and its request.
const NAME: &str = "gpus";
/// Characters of an owner's uid in the names of what is made for it: enough that an object made again under its name has other ones.
const UID_CHARS: usize = 8;
/// Hexadecimal characters that tell what is claimed: a template does not change.
const CLAIMED_CHARS: usize = 8;

/// The part of an owner's uid that names what is made for it.
pub fn short(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_hexdigit).take(UID_CHARS).collect()
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub request: Request,
    /// Name of the template.
    pub template: String,
}

impl Claimed {
    /// So many devices of a class, for a pod of the owner with this uid.
    pub fn of(uid: &str, class: &str, count: u32) -> Self {
        let told = format!("{:x}", Sha256::digest(format!("{class} {count}")));
        let told: String = told.chars().take(CLAIMED_CHARS).collect();
        Self { request: Request::of_class(NAME, class, count), template: format!("tidegate-{}-{told}", short(uid)) }
    }

    /// Adds the claim to a pod and to its first container.
    pub fn enter(&self, pod: &mut PodSpec) {
        let claim = PodResourceClaim {
            name: NAME.to_owned(),
            resource_claim_template_name: Some(self.template.clone()),
            ..PodResourceClaim::default()
        };
        pod.resource_claims.get_or_insert_default().push(claim);
        if let Some(container) = pod.containers.first_mut() {
            let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
            resources.claims.get_or_insert_default().push(Used { name: NAME.to_owned(), request: None });
        }
    }

    /// The template.
    pub fn manifest(&self, metadata: ObjectMeta) -> ResourceClaimTemplate {
        let exactly = ExactDeviceRequest {
            device_class_name: self.request.class.clone(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(i64::from(self.request.count)),
            ..ExactDeviceRequest::default()
        };
        let request = DeviceRequest { name: self.request.name.clone(), exactly: Some(exactly), ..DeviceRequest::default() };
        let devices = DeviceClaim { requests: Some(vec![request]), ..DeviceClaim::default() };
        let spec = ResourceClaimTemplateSpec { metadata: None, spec: Some(ResourceClaimSpec { devices: Some(devices) }) };
        ResourceClaimTemplate { metadata: ObjectMeta { name: Some(self.template.clone()), ..metadata }, spec: Some(spec) }
    }
}
