//! What containerd, the kubelet and a pod are told.

use std::path::Path;

use serde_json::json;

/// The only image there is.
pub const IMAGE: &str = "localhost/busybox:1";

/// No right is assumed to lower `oom_score_adj`; without that line every sandbox would fail for want of it. `networks` is the folder of
/// [`NETWORK`] or [`network`], `plugins` that of the latter's plug-ins.
pub fn containerd(networks: &Path, plugins: Option<&Path>) -> String {
    let plugins = plugins.map(|folder| format!("  bin_dirs = ['{}']\n", folder.display())).unwrap_or_default();
    format!(
        "version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  conf_dir = '{}'
{plugins}",
        networks.display()
    )
}

/// A network without which a node is not ready. Every pod is on the node's own, so that no plug-in is ever called.
pub const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "none"}]}"#;

/// The same for pods that are not on the node's network: a link to the node and an address of their own for each. `given` is the folder
/// in which it is remembered who has which.
pub fn network(given: &Path) -> String {
    let addresses = json!({
        "type": "host-local", "dataDir": given, "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}],
    });
    let plugin = json!({"type": "ptp", "ipMasq": false, "ipam": addresses});
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}).to_string()
}

/// Addresses of pods that have one of their own.
pub const PODS: &str = "10.88.0.0/24";
/// Names of the cluster end like this.
pub const DOMAIN: &str = "cluster.local";

/// Of the kubelet, in block style: it takes flow style for JSON. Works on cgroup version 1 and does not evict on a full disk. `names` is
/// where pods ask for names.
pub fn kubelet(pods: &Path, cgroup: &str, names: Option<&str>) -> String {
    let names = names.map(|at| format!("clusterDomain: {DOMAIN}\nclusterDNS:\n- {at}\n")).unwrap_or_default();
    format!(
        "{names}apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: {}
fileCheckFrequency: 1s
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupRoot: /{cgroup}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%
  imagefs.available: 1%
address: 127.0.0.1
authentication:
  anonymous:
    enabled: true
  webhook:
    enabled: false
authorization:
  mode: AlwaysAllow
resolvConf: \"\"
",
        pods.display()
    )
}

/// A static pod on the node's network: no network plug-in is needed. Its shell is process 1, so it must ask for SIGTERM; what it
/// waits for ends with it.
pub fn pod(name: &str, gpus: u32, node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 10
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: [/bin/sh, -c, 'trap \"exit 0\" TERM; /bin/busybox sleep 2147483647 & wait']
    env:
    - name: {}
      value: {node}
    - name: {}
      value: {name}
    resources:
      limits:
        nvidia.com/gpu: {gpus}
",
        super::NODE,
        super::POD
    )
}
