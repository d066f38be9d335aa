//! `up` on a machine with GPUs, whose NVML is the fake library: it finds them, gives them to jobs by identity, and gives out
//! none that its node agent calls sick.

use std::time::Duration;

use anyhow::Result;
use nvml_fake::{Script, install};
use tidegate_api::view;
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

/// Health of each device, by index, and what is wrong.
async fn health(up: &Up) -> Result<Vec<(String, String)>> {
    let devices = up.state().await?.devices;
    Ok(devices.into_iter().map(|device| (device.health, device.why)).collect())
}

async fn until_phase(up: &Up, job: &str, phase: &str, workers: u32) -> Result<view::Job> {
    let seen = || async { Ok(Some(up.job(job).await?).filter(|job| job.phase == phase && job.workers == workers)) };
    until(&format!("job/{job} to be {phase} with {workers} workers"), SOON, seen).await
}

#[tokio::test]
async fn a_sick_gpu_takes_no_work_also_after_a_restart_and_comes_back_when_it_is_well() {
    let options = Options::new().unwrap();
    let mut script = Script::of(2, "NVIDIA H100 80GB HBM3", 81_559);
    let (library, path) = install(options.folder(), &script).unwrap();
    let jobs = manifests::shell_job("wide", 1, 2, manifests::ENDLESS) + &manifests::shell_job("late", 1, 1, manifests::ENDLESS);
    let file = options.write("manifest.yaml", manifests::queues() + &jobs).unwrap();
    let options =
        options.argument("-f").argument(file.to_string_lossy()).variable("TIDEGATE_NVML_LIBRARY", library.to_string_lossy());
    let mut up = Up::start(options).await.unwrap();
    until_phase(&up, "wide", "running", 1).await.unwrap();
    until_phase(&up, "late", "running", 1).await.unwrap();

    script.gpus[0].remap_failed = true;
    script.write(&path).unwrap();
    let sick = || async { Ok(Some(health(&up).await?).filter(|all| all[0].0 == "sick")) };
    let all = until("the first GPU to be sick", SOON, sick).await.unwrap();
    assert_eq!(all[0].1, "a memory row could not be replaced");
    assert_eq!(all[1], ("ok".to_owned(), String::new()));
    let idle = || async { Ok(Some(up.state().await?.devices).filter(|devices| devices[0].holders.is_empty())) };
    until("the work on it to end", SOON, idle).await.unwrap();
    let waits = || async {
        let jobs = up.state().await?.jobs;
        let running = jobs.iter().filter(|job| job.phase == "running").count();
        Ok(jobs.into_iter().find(|job| job.phase == "waiting" && running == 1))
    };
    let waiting = until("one job to wait and the other to run", SOON, waits).await.unwrap().name;
    let explained: view::Explanation = up.get(&format!("/api/v1/explain/job/{waiting}")).await.unwrap();
    let reason = format!("device {} is sick: a memory row could not be replaced", script.gpus[0].uuid);
    assert!(explained.because.contains(&reason), "{explained:?}");

    up.kill().unwrap();
    up.start_again().unwrap();
    up.ready().await.unwrap();
    let first = || async { Ok(Some(health(&up).await?).filter(|all| !all.is_empty())) };
    let all = until("the first state", SOON, first).await.unwrap();
    assert_eq!((all[0].0.as_str(), all[1].0.as_str()), ("sick", "ok"), "from its first moment on");
    assert!(up.state().await.unwrap().devices[0].holders.is_empty());

    script.gpus[0].remap_failed = false;
    script.write(&path).unwrap();
    until_phase(&up, &waiting, "running", 1).await.unwrap();
    assert!(health(&up).await.unwrap().iter().all(|(health, why)| health == "ok" && why.is_empty()));
    let drained = up.drain().await.unwrap();
    assert!(drained.status.success() && drained.left.is_empty(), "{drained:?}");
}

#[tokio::test]
async fn what_a_person_wishes_of_a_sick_gpu_holds_when_it_is_well() {
    let options = Options::new().unwrap();
    let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
    script.gpus[0].remap_failed = true;
    let (library, path) = install(options.folder(), &script).unwrap();
    let up = Up::start(options.variable("TIDEGATE_NVML_LIBRARY", library.to_string_lossy())).await.unwrap();
    let is = |word: &'static str| {
        let up = &up;
        move || async move { Ok(Some(health(up).await?).filter(|all| all[0].0 == word)) }
    };
    until("the GPU to be sick", SOON, is("sick")).await.unwrap();
    let output = up.cli(&["drain", &format!("gpu/{}", script.gpus[0].uuid)]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("is sick (a memory row could not be replaced)"), "{output:?}");
    script.gpus[0].remap_failed = false;
    script.write(&path).unwrap();
    until("the GPU to be well and drained", SOON, is("draining")).await.unwrap();
    assert!(up.drain().await.unwrap().status.success());
}
