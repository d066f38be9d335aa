//! `up` on a machine with GPUs, whose NVML is the fake library: it finds them, and gives them to jobs by identity.

use std::time::Duration;

use nvml_fake::{Script, install};
use tidegate_tests::harness::{Options, Up, until};
use tidegate_tests::manifests;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn real_gpus_are_found_and_a_worker_sees_its_own_by_identity() {
    let options = Options::new().unwrap();
    let script = Script::of(2, "NVIDIA H100 80GB HBM3", 81_559);
    let (library, _) = install(options.folder(), &script).unwrap();
    let seen = options.folder().join("seen");
    let shell = format!("echo $CUDA_VISIBLE_DEVICES >> {}; {}", seen.display(), manifests::ENDLESS);
    let file = options.write("manifest.yaml", manifests::queues() + &manifests::shell_job("wide", 2, 2, &shell)).unwrap();
    let options =
        options.argument("-f").argument(file.to_string_lossy()).variable("TIDEGATE_NVML_LIBRARY", library.to_string_lossy());
    let up = Up::start(options).await.unwrap();

    let devices = up.state().await.unwrap().devices;
    let mut ids: Vec<String> = devices.iter().map(|device| device.id.clone()).collect();
    assert_eq!(ids, script.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>());
    assert!(
        devices.iter().all(|device| !device.simulated && device.memory_mib == 81_559 && device.class.contains("H100")),
        "{devices:?}"
    );
    let both = || async { Ok(std::fs::read_to_string(&seen).ok().filter(|text| text.lines().count() == 2)) };
    let text = until("both workers to say what they see", SOON, both).await.unwrap();
    let mut given: Vec<String> = text.lines().map(str::to_owned).collect();
    given.sort();
    ids.sort();
    assert_eq!(given, ids);
    let drained = up.drain().await.unwrap();
    assert!(drained.status.success() && drained.left.is_empty(), "{drained:?}");
}
