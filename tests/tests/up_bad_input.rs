//! What is wrong with the input of `up` is told before anything starts: exit 64, with file, field, value and remedy.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tidegate_tests::harness::{Options, Up, binary};
use tidegate_tests::{manifests, onnx, processes};

/// A node affinity that no box satisfies.
const ELSEWHERE: &str = "{requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [\
                         {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [moon]}]}]}}";

/// Runs `up` with these options to its end.
fn run(options: &Options, listen: &str) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.args(options.arguments()).args(["--listen", listen, "--data"]).arg(options.data()).stdin(Stdio::null());
    // A wrong input that is not refused would run for ever; timeout(1) says so with 124.
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=5", "60"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    bounded.output().unwrap()
}

/// It was refused with all these words, and nothing was started.
fn assert_refused(case: &str, options: &Options, listen: &str, words: &[&str]) {
    let output = run(options, listen);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{case}: {said}");
    for word in words {
        assert!(said.contains(word), "{case}: no {word:?} in:\n{said}");
    }
    assert_eq!(processes::of(&options.data()).unwrap(), [], "{case}: something was started");
    let units = std::fs::read_dir(options.data().join("units")).map_or(0, Iterator::count);
    assert_eq!(units, 0, "{case}: something was started");
}

struct Case {
    name: &'static str,
    yaml: String,
    /// Field, value and remedy. The file is looked for in every case.
    words: Vec<&'static str>,
}

fn case(name: &'static str, yaml: String, words: &[&'static str]) -> Case {
    Case { name, yaml, words: words.to_vec() }
}

/// A good job with one part replaced.
fn job(from: &str, to: &str) -> String {
    let good = manifests::shell_job("night", 1, 2, "true");
    assert!(good.contains(from), "{from:?} is in the good manifest");
    manifests::queues() + &good.replace(from, to)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_wrong_manifest_is_refused_with_file_field_value_and_remedy() {
    let cases = [
        case("unknown kind", manifests::document("TrainingJobs", "x", "  queue: q\n"), &["kind", "TrainingJobs", "TrainingJob"]),
        case(
            "unknown field",
            job("  queue: research\n", "  queue: research\n  quue: x\n"),
            &["TrainingJob/night", "quue", "remove"],
        ),
        case("unknown nested field", job("    min: 1\n", "    min: 1\n    mim: 1\n"), &["workers", "mim"]),
        case(
            "min above max",
            job("    min: 1\n", "    min: 3\n"),
            &["TrainingJob/night", "workers", "3", "lower workers.min or raise workers.max"],
        ),
        case(
            "larger than the box",
            job("    min: 1\n    max: 2\n", "    min: 5\n    max: 6\n"),
            &["workers.min", "(5)", "lower workers.min to at most 4"],
        ),
        case("no such queue", manifests::shell_job("night", 1, 1, "true"), &["spec.queue", "research", "apply a Queue"]),
        case(
            "wider than the box's node",
            job("  template:\n", "  gpu: {count: 3}\n  template:\n").replace("min: 1", "min: 2"),
            &["TrainingJob/night", "workers.min", "(2)", "lower workers.min to at most 1"],
        ),
        case(
            "no such level",
            job("  template:\n", "  spread: {level: rack}\n  template:\n"),
            &["TrainingJob/night", "spec.spread.level", "rack", "topologyLevels"],
        ),
        case(
            "parent that is not there",
            manifests::queues() + &manifests::document("Queue", "team", "  parent: org\n"),
            &["Queue/team", "spec.parent", "(org)", "apply a Queue of this name"],
        ),
        case(
            "queues in a circle",
            manifests::document("Queue", "a", "  parent: b\n") + &manifests::document("Queue", "b", "  parent: a\n"),
            &["Queue/", "spec.parent", "is below itself", "give one of these another parent"],
        ),
        case(
            "weight of zero",
            manifests::document("Queue", "a", "  weight: 0\n"),
            &["Queue/a", "spec.weight", "(0)", "at least 1"],
        ),
        case(
            "quota twice",
            manifests::document("Queue", "a", "  nominal: 1\n  quotas: [{resource: gpu, nominal: 1}]\n"),
            &["Queue/a", "nominal", "quotas", "keep one"],
        ),
        case(
            "nodes that are not this box",
            job("  template:\n", &format!("  nodeAffinity: {ELSEWHERE}\n  template:\n")),
            &["TrainingJob/night", "spec.nodeAffinity.required", "moon", "kubernetes.io/hostname: box", "remove it"],
        ),
        case(
            "a group for other nodes",
            job(
                "  workers:\n    min: 1\n    max: 2\n",
                &format!("  groups: [{{name: a, min: 1, max: 1, nodeAffinity: {ELSEWHERE}}}]\n"),
            ),
            &["TrainingJob/night", "spec.groups[0].nodeAffinity.required", "moon", "kubernetes.io/hostname: box"],
        ),
        case(
            "a model for other nodes",
            manifests::queues() + &manifests::model("m", "nowhere.onnx", &format!("  nodeAffinity: {ELSEWHERE}\n")),
            &["Model/m", "spec.nodeAffinity.required", "moon", "kubernetes.io/hostname: box"],
        ),
        case(
            "more memory than a device",
            manifests::queues() + &manifests::model("m", "nowhere.onnx", "  maxSharers: 2\n  memory: {weightsMib: 4000000}\n"),
            &["Model/m", "spec.memory", "4000000 MiB", "lower weightsMib"],
        ),
        case(
            "a queue in a namespace",
            manifests::queue("a", 1).replace("  name: a\n", "  name: a\n  namespace: team-a\n"),
            &["Queue/a", "metadata.namespace", "team-a", "remove it"],
        ),
        case(
            "a name in two namespaces",
            job("  name: night\n", "  name: night\n  namespace: team-a\n") + &manifests::shell_job("night", 1, 1, "true"),
            &["TrainingJob/night", "metadata.namespace", "(default)", "team-a", "choose another name"],
        ),
        case("a queue without a name", manifests::queue("", 1), &["metadata.name", "is not a DNS label"]),
        case("wrong type", job("    min: 1\n", "    min: one\n"), &["workers.min", "one"]),
        case(
            "contract's variable",
            job("  template:\n", "  template:\n    env: [{name: RANK, value: '0'}]\n"),
            &["env", "RANK", "remove it"],
        ),
        case("not YAML", "a: [1".into(), &["YAML", "syntax"]),
        case(
            "missing model",
            manifests::queues() + &manifests::model("m", "nowhere.onnx", ""),
            &["Model/m", "source.onnx", "nowhere.onnx", "ONNX"],
        ),
        case(
            "not ONNX",
            manifests::queues() + &manifests::model("m", "text.onnx", ""),
            &["Model/m", "source.onnx", "text.onnx", "ONNX"],
        ),
        case(
            "operator that tract lacks",
            manifests::queues() + &manifests::model("m", "odd.onnx", ""),
            &["source.onnx", "odd.onnx", "NoSuchOperator"],
        ),
    ];
    for Case { name, yaml, words } in cases {
        let options = Options::with_manifest(&yaml, 4).unwrap();
        options.write("text.onnx", "this is no model\n").unwrap();
        options.write("odd.onnx", onnx::model_of("NoSuchOperator")).unwrap();
        let words: Vec<&str> = words.into_iter().chain(["manifest.yaml"]).collect();
        assert_refused(name, &options, "127.0.0.1:0", &words);
    }
}

#[test]
fn all_that_is_wrong_in_a_file_is_told_at_once() {
    let yaml = job("  queue: research\n", "  queue: nobodys\n") + &manifests::model("m", "nowhere.onnx", "");
    assert_refused("two problems", &Options::with_manifest(&yaml, 4).unwrap(), "127.0.0.1:0", &["nobodys", "nowhere.onnx"]);
}

#[test]
fn a_wrong_flag_is_refused_with_its_value_and_remedy() {
    let yaml = manifests::queues();
    let with = |flag: &str, value: &str| Options::with_manifest(&yaml, 4).unwrap().argument(flag).argument(value);
    let none = |arguments: &[&str]| arguments.iter().fold(Options::new().unwrap(), |options, word| options.argument(*word));
    assert_refused("unknown flag", &with("--colour", "blue"), "127.0.0.1:0", &["--colour"]);
    assert_refused(
        "not a device",
        &none(&["--simulate-gpus", "four"]),
        "127.0.0.1:0",
        &["--simulate-gpus", "four", "4xH100-80GB"],
    );
    assert_refused("no devices", &none(&["--simulate-gpus", "0xH100-80GB"]), "127.0.0.1:0", &["--simulate-gpus", "0xH100-80GB"]);
    assert_refused("no such file", &with("-f", "/nowhere/x.yaml"), "127.0.0.1:0", &["/nowhere/x.yaml", "manifest"]);
    assert_refused(
        "no such example",
        &none(&["--example", "ebb", "--simulate-gpus", "4xH100-80GB"]),
        "127.0.0.1:0",
        &["--example", "ebb", "tide"],
    );
    assert_refused("no address", &Options::with_manifest(&yaml, 4).unwrap(), "nowhere", &["--listen", "nowhere"]);
}

#[test]
fn a_port_in_use_is_refused_with_its_address() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = holder.local_addr().unwrap().to_string();
    let options = Options::with_manifest(&manifests::queues(), 4).unwrap();
    assert_refused("port in use", &options, &listen, &["--listen", &listen, "address"]);
}

#[test]
fn a_machine_without_gpus_is_told_how_to_simulate_them() {
    let options = Options::new().unwrap().argument("-f");
    let file = options.write("manifest.yaml", manifests::queues()).unwrap();
    let options = options.argument(file.to_string_lossy());
    let mut command = Command::new(binary().unwrap());
    command.args(options.arguments()).args(["--listen", "127.0.0.1:0", "--data"]).arg(options.data());
    let output = command.env("TIDEGATE_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("--simulate-gpus") && said.contains("/nowhere/libnvidia-ml.so.1"), "{said}");
}

#[tokio::test]
async fn a_data_folder_of_another_version_is_refused() {
    let mut up = Up::start(Options::with_manifest(&manifests::queues(), 4).unwrap()).await.unwrap();
    up.kill().unwrap();
    let file = SqliteConnectOptions::new().filename(up.data().join("ledger.db"));
    let mut ledger = SqliteConnection::connect_with(&file).await.unwrap();
    sqlx::query("UPDATE schema_version SET version = 99").execute(&mut ledger).await.unwrap();
    ledger.close().await.unwrap();
    let said = second_on(&up);
    assert!(said.contains("version 99"), "{said}");
}

#[tokio::test]
async fn a_ledger_of_an_older_engine_is_refused_with_its_file_and_the_remedy() {
    let mut up = Up::start(Options::with_manifest(&manifests::queues(), 4).unwrap()).await.unwrap();
    up.kill().unwrap();
    let file = SqliteConnectOptions::new().filename(up.data().join("ledger.db"));
    let mut ledger = SqliteConnection::connect_with(&file).await.unwrap();
    let older = "UPDATE engine SET snapshot = json_set(snapshot, '$.version', 1)";
    assert_eq!(sqlx::query(older).execute(&mut ledger).await.unwrap().rows_affected(), 1);
    ledger.close().await.unwrap();
    let said = second_on(&up);
    for word in ["ledger.db", "version 1", "name another directory, or use the program that made it"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// What another `up` says that is refused the data folder of this one.
fn second_on(up: &Up) -> String {
    let mut second = Command::new(binary().unwrap());
    second.args(["up", "--simulate-gpus", "4xH100-80GB", "--listen", "127.0.0.1:0", "--data"]).arg(up.data());
    let output = second.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("--data") && said.contains(&*up.data().to_string_lossy()), "{said}");
    said
}

#[tokio::test]
async fn a_data_folder_that_another_up_holds_is_refused_and_the_other_is_not_disturbed() {
    let up = Up::start(Options::with_manifest(&manifests::queues(), 4).unwrap()).await.unwrap();
    second_on(&up);
    assert_eq!(up.state().await.unwrap().devices.len(), 4);
    let drained = up.drain().await.unwrap();
    assert!(drained.status.success() && drained.left.is_empty(), "{drained:?}");
}
