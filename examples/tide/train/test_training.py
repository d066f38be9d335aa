"""Run with `python3 -m unittest -v` in this folder. Real processes, real sockets, real signals."""
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 60.0


class World:
    """Takes progress reports as Tidegate does. `status` is what it answers."""

    def __init__(self, status: int = 204) -> None:
        self.status, self.lines, self.paths = status, [], []
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                world.paths.append(self.path)
                if world.status == 204:
                    world.lines += [json.loads(line) for line in body.splitlines()]
                self.send_response(world.status)
                self.end_headers()

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/progress/job?token=secret"

    def checkpoints(self) -> list[int]:
        return [line["checkpoint"]["step"] for line in self.lines if "checkpoint" in line]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Attempt:
    """The workers of one attempt."""

    count = 0

    def __init__(self, folder: Path | None, world_size: int, script: str = "spirals.py", url: str = "", step_ms: float = 60, steps: int = 60) -> None:
        Attempt.count += 1
        port = free_port()
        command = [sys.executable, script, "--steps", str(steps), "--checkpoint-every", "10", "--step-ms", str(step_ms), "--seed", "5"]
        self.workers = []
        for rank in range(world_size):
            env = {
                "PATH": os.environ["PATH"],
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TIDEGATE_JOB": script,
                "TIDEGATE_ATTEMPT": str(Attempt.count),
            }
            env.update({"TIDEGATE_CHECKPOINT_DIR": str(folder)} if folder else {})
            env.update({"TIDEGATE_PROGRESS_URL": url} if url else {})
            self.workers.append(subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        self.output = [""] * world_size

    def signal(self, number: int, ranks=None) -> None:
        for rank in range(len(self.workers)) if ranks is None else ranks:
            self.workers[rank].send_signal(number)

    def wait(self, seconds: float = SECONDS) -> list[int]:
        """The exit codes; a worker that hangs is killed and shows as -9."""
        until = time.monotonic() + seconds
        for rank, worker in enumerate(self.workers):
            try:
                self.output[rank] = "".join(worker.communicate(timeout=max(until - time.monotonic(), 0.1)))
            except subprocess.TimeoutExpired:
                worker.kill()
                self.output[rank] = "".join(worker.communicate())
        return [worker.returncode for worker in self.workers]


def newest_step(folder: Path) -> int:
    return max((int(path.stem.split("-")[1]) for path in folder.glob("step-*.ckpt")), default=0)


def wait_for(condition, what: str) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


class Training(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def folder_named(self, name: str) -> Path:
        (self.folder / name).mkdir()
        return self.folder / name

    def final(self, folder: Path) -> dict:
        return json.loads((folder / "final.json").read_text())

    def disturbed_equals_undisturbed(self, script: str) -> None:
        calm, rough = self.folder_named("calm"), self.folder_named("rough")
        self.assertEqual(Attempt(calm, 1, script, step_ms=0).wait(), [0])

        stopped = Attempt(rough, 1, script)
        wait_for(lambda: newest_step(rough) >= 10, "the first checkpoint")
        stopped.signal(signal.SIGTERM)
        self.assertEqual(stopped.wait(10), [0], stopped.output)
        after_stop = newest_step(rough)
        self.assertIn(f"stopped at step {after_stop} of 60", stopped.output[0])

        killed = Attempt(rough, 3, script)
        wait_for(lambda: newest_step(rough) >= after_stop + 8, "a checkpoint of three workers")
        killed.signal(signal.SIGKILL, [1])
        codes = killed.wait(10)
        self.assertEqual(codes, [1, -9, 1], killed.output)

        last = Attempt(rough, 2, script)
        self.assertEqual(last.wait(), [0, 0], last.output)
        self.assertEqual(self.final(rough), self.final(calm))

    def test_spirals_end_the_same_with_one_three_and_two_workers_a_stop_and_a_kill(self) -> None:
        self.disturbed_equals_undisturbed("spirals.py")

    def test_letters_end_the_same_with_one_three_and_two_workers_a_stop_and_a_kill(self) -> None:
        self.disturbed_equals_undisturbed("letters.py")

    def test_a_stop_that_one_worker_hears_stops_all_at_one_step_with_a_checkpoint(self) -> None:
        attempt = Attempt(self.folder, 3, steps=1000)
        wait_for(lambda: newest_step(self.folder) >= 10, "the first checkpoint")
        attempt.signal(signal.SIGTERM, [2])
        self.assertEqual(attempt.wait(10), [0, 0, 0], attempt.output)
        self.assertIn(f"stopped at step {newest_step(self.folder)} of 1000", attempt.output[0])

    def test_the_death_of_rank_0_ends_the_others(self) -> None:
        attempt = Attempt(self.folder, 3, steps=1000)
        wait_for(lambda: newest_step(self.folder) >= 10, "the first checkpoint")
        attempt.signal(signal.SIGKILL, [0])
        self.assertEqual(attempt.wait(5), [-9, 1, 1], attempt.output)

    def test_a_stop_while_workers_wait_for_each_other_ends_them_at_once(self) -> None:
        attempt = Attempt(self.folder, 2, steps=1000)
        attempt.signal(signal.SIGSTOP, [1])
        wait_for(lambda: (self.folder / "lock").exists(), "rank 0")
        attempt.signal(signal.SIGTERM, [0])
        self.assertEqual(attempt.workers[0].wait(5), 0)
        attempt.signal(signal.SIGKILL, [1])
        attempt.wait(5)

    def test_a_broken_checkpoint_gives_way_to_the_one_before_it(self) -> None:
        calm, rough = self.folder_named("calm"), self.folder_named("rough")
        self.assertEqual(Attempt(calm, 1, step_ms=0).wait(), [0])
        attempt = Attempt(rough, 1)
        wait_for(lambda: newest_step(rough) >= 20, "two checkpoints")
        attempt.signal(signal.SIGKILL)
        attempt.wait()
        newest = newest_step(rough)
        path = rough / f"step-{newest:010d}.ckpt"
        path.write_bytes(path.read_bytes()[:-40])
        again = Attempt(rough, 1)
        self.assertEqual(again.wait(), [0], again.output)
        self.assertIn(f"{path.name} is broken", again.output[0])
        self.assertIn(f"goes on from step {newest - 10} of 60", again.output[0])
        self.assertEqual(self.final(rough), self.final(calm))

    def test_two_checkpoints_are_kept(self) -> None:
        self.assertEqual(Attempt(self.folder, 1, step_ms=0).wait(), [0])
        self.assertEqual(sorted(p.name for p in self.folder.glob("step-*")), ["step-0000000050.ckpt", "step-0000000060.ckpt"])

    def test_a_finished_run_started_again_ends_at_once_with_the_same_figures(self) -> None:
        self.assertEqual(Attempt(self.folder, 1, step_ms=0).wait(), [0])
        final = self.final(self.folder)
        self.assertEqual(Attempt(self.folder, 2, step_ms=10_000).wait(10), [0, 0])
        self.assertEqual(self.final(self.folder), final)

    def test_a_checkpoint_of_another_run_is_refused(self) -> None:
        self.assertEqual(Attempt(self.folder, 1, step_ms=0).wait(), [0])
        other = Attempt(self.folder, 1, step_ms=0, steps=70)
        self.assertEqual(other.wait(), [1])
        self.assertIn("the checkpoint is of another run", other.output[0])

    def test_a_second_rank_0_in_the_folder_is_refused(self) -> None:
        first = Attempt(self.folder, 1, steps=1000)
        wait_for(lambda: newest_step(self.folder) >= 10, "the first checkpoint")
        second = Attempt(self.folder, 1, steps=1000)
        self.assertEqual(second.wait(20), [1])
        self.assertIn("must not run beside it", second.output[0])
        first.signal(signal.SIGTERM)
        self.assertEqual(first.wait(10), [0])

    def test_without_any_variable_it_runs_alone_and_prints_the_final_figures(self) -> None:
        done = subprocess.run([sys.executable, "spirals.py", "--steps", "30", "--step-ms", "0"], cwd=HERE, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(set(json.loads(done.stdout)), {"final_loss", "final_accuracy"})

    def test_more_workers_are_faster(self) -> None:
        def seconds(world_size: int) -> float:
            began = time.monotonic()
            self.assertEqual(Attempt(self.folder_named(f"w{world_size}"), world_size, steps=40, step_ms=100).wait(), [0] * world_size)
            return time.monotonic() - began

        self.assertGreater(seconds(1), 1.5 * seconds(4))


class Reports(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def test_checkpoints_and_final_figures_arrive(self) -> None:
        world = World()
        self.addCleanup(world.close)
        attempt = Attempt(self.folder, 2, url=world.url)
        self.assertEqual(attempt.wait(), [0, 0], attempt.output)
        self.assertEqual(sorted(set(world.checkpoints())), [10, 20, 30, 40, 50, 60])
        self.assertEqual(set(world.paths), {"/progress/job?token=secret"})
        final = json.loads((self.folder / "final.json").read_text())["metrics"]
        self.assertIn({"step": 60, "metrics": final, "checkpoint": {"step": 60}}, world.lines)

    def test_a_world_that_is_away_delays_no_step_and_hears_the_checkpoints_later(self) -> None:
        world = World(503)
        self.addCleanup(world.close)
        attempt = Attempt(self.folder, 1, url=world.url, steps=1000, step_ms=30)
        wait_for(lambda: newest_step(self.folder) >= 50, "five checkpoints")
        self.assertEqual(world.lines, [])
        world.status = 204
        wait_for(lambda: {10, 20, 30, 40, 50} <= set(world.checkpoints()), "the waiting notices")
        attempt.signal(signal.SIGTERM)
        self.assertEqual(attempt.wait(10), [0], attempt.output)
        self.assertEqual(world.checkpoints()[-1], newest_step(self.folder))

    def test_a_stop_with_nobody_listening_ends_within_the_grace(self) -> None:
        attempt = Attempt(self.folder, 2, url=f"http://127.0.0.1:{free_port()}/x", steps=1000)
        wait_for(lambda: newest_step(self.folder) >= 10, "the first checkpoint")
        attempt.signal(signal.SIGTERM)
        self.assertEqual(attempt.wait(6), [0, 0], attempt.output)

    def test_a_stale_attempt_ends_and_writes_nothing_more(self) -> None:
        world = World(410)
        self.addCleanup(world.close)
        attempt = Attempt(self.folder, 2, url=world.url, steps=1000)
        self.assertEqual(attempt.wait(20), [1, 1], attempt.output)
        self.assertIn("a newer attempt has replaced this one", attempt.output[0])
        self.assertLess(newest_step(self.folder), 60)


class Document(unittest.TestCase):
    def test_the_worker_in_the_contract_stops_with_a_checkpoint_and_goes_on_from_it(self) -> None:
        world = World()
        self.addCleanup(world.close)
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        text = (HERE.parents[2] / "docs" / "training-contract.md").read_text(encoding="utf-8")
        program = text.split("```python\n")[1].split("```")[0]
        self.assertLessEqual(len(program.splitlines()), 32)
        env = {"PATH": os.environ["PATH"], "TIDEGATE_CHECKPOINT_DIR": temporary.name, "TIDEGATE_PROGRESS_URL": world.url}
        start = lambda: subprocess.Popen([sys.executable, "-c", program], env=env)
        first = start()
        wait_for(lambda: 50 in world.checkpoints(), "its first checkpoint")
        first.send_signal(signal.SIGTERM)
        self.assertEqual(first.wait(10), 0)
        stopped_at = world.checkpoints()[-1]
        self.assertLess(stopped_at, 200)
        self.assertEqual(start().wait(30), 0)
        self.assertEqual(world.checkpoints()[-1], 200)
        self.assertNotIn(50, world.checkpoints()[2:], "it went on, and did not begin again")


if __name__ == "__main__":
    unittest.main()
