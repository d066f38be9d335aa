//! Units on real processes: the real `tidegate shim`, shells and Python as commands.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidegate_local::unit::folder::Folder;
use tidegate_local::unit::process::{Process, Table};
use tidegate_local::unit::{Exit, Restart, Run, UnitId, UnitSpec};
use tidegate_local::units::{Error, UnitEvent, UnitState, UnitStatus, Units};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Far above what anything here takes, also on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);
const LONG_GRACE: Duration = Duration::from_secs(50);
/// Tells the helper test below where to be the world.
const HELPER_DIR: &str = "TIDEGATE_TEST_UNITS_DIR";
/// Ends with 3 at SIGTERM.
const OBEDIENT: &str = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done";

struct World {
    units: Units,
    events: UnboundedReceiver<UnitEvent>,
    found: Vec<UnitStatus>,
    dir: PathBuf,
}

impl World {
    async fn open(dir: &Path) -> Self {
        let (sender, events) = unbounded_channel();
        let (units, found) = Units::open(dir, tidegate(), sender).await.unwrap();
        Self { units, events, found, dir: dir.canonicalize().unwrap() }
    }

    async fn next(&mut self) -> UnitEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("no event came").unwrap()
    }

    async fn started(&mut self) -> Process {
        match self.next().await {
            UnitEvent::Started { pid, .. } => Process::of(pid).unwrap(),
            UnitEvent::Exited { id, exit } => panic!("{id} ended: {exit:?}"),
        }
    }

    async fn exited(&mut self) -> Exit {
        loop {
            if let UnitEvent::Exited { exit, .. } = self.next().await {
                return exit;
            }
        }
    }

    async fn run(&mut self, spec: &UnitSpec) -> Exit {
        self.units.start(spec, None).unwrap();
        self.exited().await
    }

    fn folder(&self, id: &str) -> Folder {
        Folder::new(self.dir.join(id))
    }

    fn output(&self, id: &str) -> String {
        String::from_utf8(self.units.tail(&unit_id(id), 1 << 20).unwrap().bytes).unwrap()
    }

    /// Processes of a unit that run now.
    fn alive(&self, id: &str) -> usize {
        Table::read().unwrap().marked(self.folder(id).path()).len()
    }
}

/// A folder of units. Whatever a failed test left running ends with it.
struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let folder = Folder::new(entry.path());
            if let Ok(Some(Some(shim))) = folder.holder() {
                shim.kill();
            }
            for left in Table::read().unwrap_or_default().marked(folder.path()) {
                left.process.kill();
            }
        }
    }
}

/// The program under test, in the target folder of this test.
fn tidegate() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let exe = test.parent().and_then(Path::parent).unwrap().join("tidegate");
    assert!(exe.exists(), "{} is not built; run: cargo build --release --workspace", exe.display());
    exe
}

fn unit_id(id: &str) -> UnitId {
    UnitId::new(id).unwrap()
}

fn shell(id: &str, script: &str) -> UnitSpec {
    command(id, &["sh", "-c", script])
}

fn command(id: &str, words: &[&str]) -> UnitSpec {
    UnitSpec {
        id: unit_id(id),
        command: words.iter().map(ToString::to_string).collect(),
        env: BTreeMap::new(),
        working_dir: "/".into(),
        log_max_bytes: 1 << 20,
        restart: Restart::Never,
        listen_fd: false,
        labels: BTreeMap::new(),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

/// Kills it, and waits until it is dead: a signal takes a moment, in which a server may still accept.
async fn end_with_9(pid: u32) {
    let process = Process::of(pid).unwrap();
    kill_9(pid);
    until("dead", || !process.is_alive()).await;
}

fn run_of(status: &UnitStatus) -> &Run {
    match &status.state {
        UnitState::Running(Some(run)) => run,
        other => panic!("does not run: {other:?}"),
    }
}

#[tokio::test]
async fn exit_codes_signals_and_failed_starts_are_recorded() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let exit = world.run(&shell("code", "exit 7")).await;
    assert_eq!((exit.code, exit.signal, exit.killed, exit.requested, exit.lost), (Some(7), None, false, false, false));
    assert!(exit.at_ms > 1_600_000_000_000);
    let exit = world.run(&shell("signal", "kill -KILL $$")).await;
    assert_eq!((exit.code, exit.signal, exit.killed), (None, Some(9), false));
    let exit = world.run(&command("absent", &["no-such-program"])).await;
    assert_eq!(exit.code, Some(127));
    assert!(exit.error.unwrap().contains("cannot start \"no-such-program\" in /: No such file"));
    let exit = world.run(&command("folder", &["/tmp"])).await;
    assert_eq!(exit.code, Some(126));
    assert_eq!(world.folder("code").exit().unwrap().unwrap().code, Some(7));
}

#[tokio::test]
async fn a_start_is_told_before_the_end_even_of_the_shortest_run() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    world.units.start(&command("a", &["true"]), None).unwrap();
    assert!(matches!(world.next().await, UnitEvent::Started { restarts: 0, .. }));
    assert!(matches!(world.next().await, UnitEvent::Exited { .. }));
}

#[tokio::test]
async fn the_command_gets_its_environment_folder_and_relative_program() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let place = TempDir::new().unwrap();
    fs::create_dir(place.path().join("bin")).unwrap();
    fs::copy("/bin/sh", place.path().join("bin/my-sh")).unwrap();
    let mut spec = command("env", &["./bin/my-sh", "-c", "echo $A $TIDEGATE_UNIT $PWD ${LISTEN_FDS-none} $HOME; echo err >&2"]);
    spec.env.insert("A".into(), "b c".into());
    spec.working_dir = place.path().canonicalize().unwrap();
    assert_eq!(world.run(&spec).await.code, Some(0));
    let home = std::env::var("HOME").unwrap_or_default();
    assert_eq!(world.output("env"), format!("b c env {} none {home}\nerr\n", spec.working_dir.display()));
}

#[tokio::test]
async fn a_stop_gives_the_command_its_grace() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    world.units.start(&shell("a", OBEDIENT), None).unwrap();
    until("ready", || world.output("a") == "ready\n").await;
    world.units.stop(&unit_id("a"), LONG_GRACE).unwrap();
    let exit = world.exited().await;
    assert_eq!((exit.code, exit.killed, exit.requested, exit.lost), (Some(3), false, true, false));
    world.units.stop(&unit_id("a"), LONG_GRACE).unwrap();
}

#[tokio::test]
async fn a_worker_behind_a_shell_that_dies_at_once_still_has_its_grace() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let saver = "(trap 'sleep 0.2; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.02; done) & wait";
    world.units.start(&shell("a", saver), None).unwrap();
    until("ready", || world.output("a") == "ready\n").await;
    world.units.stop(&unit_id("a"), LONG_GRACE).unwrap();
    let exit = world.exited().await;
    assert_eq!((exit.signal, exit.killed), (Some(15), false));
    assert!(world.output("a").ends_with("saved\n"), "{}", world.output("a"));
}

#[tokio::test]
async fn after_the_grace_everything_is_killed() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.02; done";
    world.units.start(&shell("a", stubborn), None).unwrap();
    until("ready", || world.output("a") == "ready\n").await;
    let asked = Instant::now();
    world.units.stop(&unit_id("a"), Duration::from_millis(300)).unwrap();
    let exit = world.exited().await;
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!((exit.signal, exit.killed, exit.requested), (Some(9), true, true));
    assert_eq!(world.alive("a"), 0);
}

#[tokio::test]
async fn a_second_stop_can_shorten_the_grace() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    world.units.start(&shell("a", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.02; done"), None).unwrap();
    until("ready", || world.output("a") == "ready\n").await;
    world.units.stop(&unit_id("a"), Duration::from_secs(100_000)).unwrap();
    until("asked", || world.output("a").contains("asked")).await;
    world.units.kill(&unit_id("a")).unwrap();
    assert!(world.exited().await.killed);
}

#[tokio::test]
async fn when_the_command_ends_its_daemons_end_too() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    // One in the group, one in a session of its own, one in a session of its own whose parent is gone.
    let script = "sleep 1000 & setsid sleep 1001 & setsid sh -c 'setsid sleep 1002 &'; while [ ! -e go ]; do sleep 0.02; done";
    let mut spec = shell("a", script);
    spec.working_dir = dir.path().into();
    world.units.start(&spec, None).unwrap();
    let daemons = || {
        let table = Table::read().unwrap();
        let marked = table.marked(world.folder("a").path());
        let is_daemon = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\x00100"));
        marked.iter().filter(|s| is_daemon(s.process.pid)).count()
    };
    until("three daemons", || daemons() == 3).await;
    fs::write(dir.path().join("go"), "").unwrap();
    let exit = world.exited().await;
    assert_eq!((exit.code, exit.killed), (Some(0), false));
    assert_eq!(world.alive("a"), 0);
}

#[tokio::test]
async fn a_shim_that_is_killed_leaves_no_orphan() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    // One in the group, and one in a session of its own whose parent is gone: nothing but its environment tells whose it is.
    world.units.start(&shell("a", "sleep 1000 & setsid sh -c 'setsid sleep 1001 &'; echo ready; wait"), None).unwrap();
    let main = world.started().await;
    until("all run", || world.output("a") == "ready\n" && world.alive("a") == 3).await;
    kill_9(world.folder("a").run().unwrap().unwrap().shim_pid);
    let exit = world.exited().await;
    assert_eq!((exit.code, exit.signal, exit.lost, exit.requested), (None, None, true, false));
    assert!(!main.is_alive());
    assert_eq!(world.alive("a"), 0);
}

#[tokio::test]
async fn a_shim_that_is_killed_while_there_is_no_world_is_cleared_up_when_one_opens() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    world.units.start(&shell("a", "setsid sleep 1000 & echo ready; wait"), None).unwrap();
    let main = world.started().await;
    until("all run", || world.output("a") == "ready\n" && world.alive("a") == 2).await;
    world.units.close().await;
    end_with_9(world.folder("a").run().unwrap().unwrap().shim_pid).await;
    assert!(main.is_alive());

    let again = World::open(dir.path()).await;
    let [UnitStatus { state: UnitState::Ended(exit), .. }] = &again.found[..] else { panic!("{:?}", again.found) };
    assert!(exit.lost);
    assert!(!main.is_alive());
    assert_eq!(again.alive("a"), 0);
    assert_eq!(again.folder("a").exit().unwrap().as_ref(), Some(exit));
}

/// Not a test of its own: the world of the next one, in a process that can be killed.
#[tokio::test]
#[ignore = "helper of the test below, which runs it"]
async fn helper_world_that_is_killed() {
    let Some(dir) = std::env::var_os(HELPER_DIR) else { return };
    let mut world = World::open(Path::new(&dir)).await;
    world.units.start(&shell("a", OBEDIENT), None).unwrap();
    world.units.start(&shell("ended", "exit 5"), None).unwrap();
    until("ready", || world.output("a") == "ready\n").await;
    world.exited().await;
    kill_9(std::process::id());
}

#[tokio::test]
async fn units_outlive_a_killed_world_and_obey_the_next() {
    let dir = Dir::new();
    let mut helper = Command::new(std::env::current_exe().unwrap());
    helper.args(["--exact", "helper_world_that_is_killed", "--ignored"]).env(HELPER_DIR, dir.path());
    let status = tokio::task::spawn_blocking(move || helper.output().unwrap().status).await.unwrap();
    assert_eq!(status.signal(), Some(9));

    let mut world = World::open(dir.path()).await;
    let found = |id: &str| world.found.iter().find(|s| s.spec.id.as_str() == id).unwrap();
    let run = run_of(found("a")).clone();
    assert!(run.process().is_alive());
    assert!(matches!(&found("ended").state, UnitState::Ended(exit) if exit.code == Some(5)));
    world.units.start(&shell("a", OBEDIENT), None).unwrap();
    world.units.stop(&unit_id("a"), LONG_GRACE).unwrap();
    let UnitEvent::Exited { exit, .. } = world.next().await else { panic!("started twice") };
    assert_eq!((exit.code, exit.requested, exit.lost), (Some(3), true, false));
}

#[tokio::test]
async fn a_stop_that_was_asked_for_is_finished_without_the_world() {
    let dir = Dir::new();
    let world = World::open(dir.path()).await;
    world.units.start(&shell("a", "trap '' TERM; echo ready; while :; do sleep 0.02; done"), None).unwrap();
    until("ready", || world.output("a") == "ready\n").await;
    world.units.stop(&unit_id("a"), Duration::from_millis(200)).unwrap();
    world.units.close().await;
    until("exit.json", || world.folder("a").exit().unwrap().is_some_and(|e| e.killed && e.requested)).await;
    assert_eq!(world.alive("a"), 0);
}

#[tokio::test]
async fn a_unit_runs_once_whoever_starts_it_how_often() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let mut spec = shell("a", "echo ran >> runs; while [ ! -e go ]; do sleep 0.02; done");
    spec.working_dir = dir.path().into();
    world.units.start(&spec, None).unwrap();
    world.started().await;
    world.units.start(&spec, None).unwrap();
    let folder = world.folder("a");
    let by_hand = || Command::new(tidegate()).args(["shim", "--dir"]).arg(folder.path()).status().unwrap();
    assert!(by_hand().success());
    fs::write(dir.path().join("go"), "").unwrap();
    assert_eq!(world.exited().await.code, Some(0));
    assert!(by_hand().success());
    assert!(matches!(world.units.start(&spec, None), Err(Error::Ended(_))));
    assert_eq!(fs::read_to_string(dir.path().join("runs")).unwrap(), "ran\n");
}

#[tokio::test]
async fn a_unit_whose_shim_never_came_up_is_ended_so_that_it_cannot_come_up_late() {
    let dir = Dir::new();
    let folder = Folder::new(dir.path().join("a"));
    folder.create().unwrap();
    let mut spec = shell("a", "touch ran");
    spec.working_dir = dir.path().into();
    folder.write_spec(&spec).unwrap();
    let world = World::open(dir.path()).await;
    assert!(matches!(&world.found[..], [UnitStatus { state: UnitState::Ended(exit), .. }] if exit.lost));
    assert!(Command::new(tidegate()).args(["shim", "--dir"]).arg(folder.path()).status().unwrap().success());
    assert!(!dir.path().join("ran").exists());
}

#[tokio::test]
async fn only_an_ended_unit_can_be_forgotten_and_then_started_anew() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let id = unit_id("a");
    assert!(matches!(world.units.stop(&id, LONG_GRACE), Err(Error::Unknown(_))));
    world.units.start(&shell("a", OBEDIENT), None).unwrap();
    world.started().await;
    assert!(matches!(world.units.forget(&id), Err(Error::Running(_))));
    world.units.kill(&id).unwrap();
    world.exited().await;
    world.units.forget(&id).unwrap();
    assert!(!world.folder("a").path().exists() && world.units.status(&id).is_none());
    assert_eq!(world.run(&shell("a", "exit 9")).await.code, Some(9));
}

#[tokio::test]
async fn the_log_is_bounded_and_keeps_the_end() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let mut spec = shell("a", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
    spec.log_max_bytes = 10_000;
    assert_eq!(world.run(&spec).await.code, Some(0));
    let size = |name: &str| fs::metadata(world.folder("a").file(name)).unwrap().len();
    assert!(size("log") + size("log.1") <= 10_000, "{} {}", size("log"), size("log.1"));
    assert!(world.output("a").ends_with("line 19998\nline 19999\n"));
    let whole: u64 = (0..20_000).map(|i| format!("line {i}\n").len() as u64).sum();
    let chunk = world.units.read_log(&unit_id("a"), 0, 1 << 20).unwrap();
    assert_eq!(chunk.end(), whole);
}

/// Answers every connection with its pid.
const SERVER: &str = "
import os, socket
assert os.environ['LISTEN_FDS'] == '1' and 'LISTEN_PID' not in os.environ
s = socket.socket(fileno=3)
while True:
    c, _ = s.accept()
    c.sendall(str(os.getpid()).encode())
    c.close()
";

fn ask(address: SocketAddr) -> u32 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.parse().unwrap()
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_on_the_same_socket_and_clients_wait() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let spec = UnitSpec { restart: Restart::Always, listen_fd: true, ..command("router", &["python3", "-c", SERVER]) };
    world.units.start(&spec, Some(&listener)).unwrap();
    drop(listener);
    let first = world.started().await.pid;
    assert_eq!(tokio::task::spawn_blocking(move || ask(address)).await.unwrap(), first);

    // Without a world.
    world.units.close().await;
    end_with_9(first).await;
    let second = tokio::task::spawn_blocking(move || ask(address)).await.unwrap();
    assert_ne!(second, first);
    let mut world = World::open(dir.path()).await;
    let run = run_of(&world.found[0]).clone();
    assert_eq!((run.pid, run.restarts), (second, 1));
    assert_eq!(run.last_exit.and_then(|e| e.signal), Some(9));

    // With one: it hears of it.
    kill_9(second);
    let UnitEvent::Started { pid: third, restarts: 2, .. } = world.next().await else { panic!("no third run") };
    assert_eq!(tokio::task::spawn_blocking(move || ask(address)).await.unwrap(), third);
    world.units.stop(&unit_id("router"), LONG_GRACE).unwrap();
    let exit = world.exited().await;
    assert_eq!((exit.signal, exit.requested), (Some(15), true));
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn a_command_that_cannot_live_is_tried_again_until_it_is_stopped() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let spec = UnitSpec { restart: Restart::Always, ..shell("a", "exit 4") };
    world.units.start(&spec, None).unwrap();
    let mut told = None;
    while told < Some(2) {
        let UnitEvent::Started { restarts, .. } = world.next().await else { panic!("not tried again") };
        assert!(told < Some(restarts));
        told = Some(restarts);
    }
    world.units.stop(&unit_id("a"), LONG_GRACE).unwrap();
    let exit = world.exited().await;
    // Between two runs, or in the middle of the next.
    assert!(exit.requested && (exit.code == Some(4) || exit.signal == Some(15)), "{exit:?}");
}

#[tokio::test]
async fn no_descriptor_leaks_into_a_worker() {
    let dir = Dir::new();
    let mut world = World::open(dir.path()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // As if whoever started the world had left one open.
    let _left_open = nix::unistd::dup(&listener).unwrap();
    // The spec does not ask for the socket, so it does not get it.
    world.units.start(&command("a", &["sleep", "1000"]), Some(&listener)).unwrap();
    let pid = world.started().await.pid;
    let open = || {
        let mut open: Vec<String> =
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        open.sort();
        open
    };
    // A program opens its libraries for a moment.
    until("only standard streams", || open() == ["0", "1", "2"]).await;
    world.units.kill(&unit_id("a")).unwrap();
    world.exited().await;
}
