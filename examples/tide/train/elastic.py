"""The training loop: the same result, to the last bit, for any number of workers and interruptions.

The examples of step s follow from (seed, s) alone and are cut into a fixed number of shards. The
workers share the shards out, their gradients are added in the order of the shards, and every
worker takes the same optimiser step. Parameters and optimiser state are in the checkpoint, and a
step's learning rate follows from its number. So nothing that Tidegate does to the run (more
workers, fewer, a stop, a kill) is in the numbers.
"""
from __future__ import annotations

import argparse
import json
import math
import sys
import time
from array import array

from group import Group, StoppedEarly
from tidegate_worker import Checkpoints, Contract, Progress, Stop, WorkerError, log, write_whole
from tinynet import Adam

# Divides by 1, 2, 3, 4, 6 and 12 workers, so that their shares are equal.
SHARDS = 12
REPORT_SECONDS = 1.0
# A peer that is silent for longer is dead or stuck: far above any step, and above a busy machine's hiccups.
SILENCE_SECONDS = 30.0
# What a last report may take of the grace period when Tidegate is down.
LAST_REPORT_SECONDS = 2.0


class Run:
    """What changes while training: it is the checkpoint, and what rank 0 gives to the others."""

    def __init__(self, parameters: list[float]) -> None:
        self.step = 0
        self.parameters = parameters
        self.adam = Adam(len(parameters))

    def state(self, identity: dict) -> dict:
        return {"identity": identity, "step": self.step, "parameters": self.parameters, "mean": self.adam.mean, "square": self.adam.square}

    def restore(self, state: dict, identity: dict) -> None:
        if state["identity"] != identity:
            raise WorkerError(f"the checkpoint is of another run: {state['identity']}, not {identity}; use another checkpoint folder")
        self.step, self.parameters = state["step"], state["parameters"]
        self.adam.mean, self.adam.square = state["mean"], state["square"]


class Rank0:
    """What only rank 0 does: checkpoints, reports, the final figures."""

    def __init__(self, contract: Contract, task, identity: dict) -> None:
        self.task, self.identity = task, identity
        self.checkpoints = Checkpoints(contract.checkpoint_dir)
        self.progress = Progress(contract.progress_url)
        self.reported = time.monotonic()

    def resume(self, run: Run) -> None:
        state = self.checkpoints.load()
        if state is not None:
            run.restore(state, self.identity)
            # Said again, because Tidegate may have been down when it was written.
            self.progress.report(run.step, checkpoint=run.step)

    def report(self, run: Run, loss: float) -> None:
        if time.monotonic() - self.reported >= REPORT_SECONDS:
            self.reported = time.monotonic()
            self.progress.report(run.step, {"loss": loss})
        if self.progress.stale:
            raise WorkerError("a newer attempt has replaced this one")

    def save(self, run: Run) -> None:
        self.checkpoints.save(run.step, run.state(self.identity))
        figures = self.task.evaluate(run.parameters)
        self.progress.report(run.step, {f"heldout_{name}": value for name, value in figures.items()}, checkpoint=run.step)
        log(f"step {run.step}: checkpoint, " + ", ".join(f"held-out {name} {value:.4f}" for name, value in figures.items()))

    def finish(self, run: Run) -> None:
        figures = {f"final_{name}": value for name, value in self.task.evaluate(run.parameters, final=True).items()}
        if self.checkpoints.folder is not None:
            text = json.dumps({**self.identity, "step": run.step, "metrics": figures}, indent=2)
            write_whole(self.checkpoints.folder / "final.json", text.encode() + b"\n")
        self.progress.report(run.step, figures, checkpoint=run.step)
        print(json.dumps(figures), flush=True)


def main(task_class, description: str) -> None:
    """Runs one worker; the process ends with its exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=1200, help="optimiser steps in all")
    parser.add_argument("--seed", type=int, default=1, help="of the data, the start and the batches")
    parser.add_argument("--checkpoint-every", type=int, default=25, help="steps between checkpoints")
    parser.add_argument("--step-ms", type=float, default=400.0, help="time of a step on one device, shared out among the workers; 0: as fast as it goes")
    args = parser.parse_args()
    if args.steps < 1 or args.checkpoint_every < 1 or args.step_ms < 0:
        parser.error("--steps and --checkpoint-every must be at least 1, --step-ms at least 0")
    stop = Stop()
    try:
        train(task_class(args.seed), args, Contract.from_environment(), stop)
    except StoppedEarly:
        log("stopped before the first step")
    except (WorkerError, OSError) as error:
        log(f"{type(error).__name__}: {error}")
        sys.exit(1)


def train(task, args: argparse.Namespace, contract: Contract, stop: Stop) -> None:
    identity = {"task": task.name, "seed": args.seed, "steps": args.steps}
    run = Run(task.initial())
    rank0 = Rank0(contract, task, identity) if contract.rank == 0 else None
    with Group(contract, stop, max(SILENCE_SECONDS, args.step_ms / 100.0)) as group:
        if rank0:
            rank0.resume(run)
        run.restore(json.loads(group.share(json.dumps(run.state(identity)).encode())), identity)
        log(f"attempt {contract.attempt}: rank {group.rank} of {group.size} goes on from step {run.step} of {args.steps}")
        steps(run, task, args, group, stop, rank0)
        if rank0:
            end(run, args, rank0)
        # Only now, with the checkpoint on the disk, may any worker say 0.
        group.share(b"saved")
    if rank0:
        rank0.progress.close(LAST_REPORT_SECONDS)


def steps(run: Run, task, args: argparse.Namespace, group: Group, stop: Stop, rank0: Rank0 | None) -> None:
    """Trains until the last step, or until the step after which all agreed to stop."""
    stopping = False
    while run.step < args.steps and not stopping:
        began = time.monotonic()
        shards = task.gradients(run.parameters, run.step, group.shards(SHARDS), SHARDS)
        stop.wait(began + args.step_ms / 1000.0 / group.size - time.monotonic())
        total, stopping = group.all_reduce(shards, SHARDS, stop.requested)
        loss = total.pop() / task.batch
        mean = array("d", (value / task.batch for value in total))
        run.step += 1
        run.parameters = run.adam.apply(run.parameters, mean, run.step, rate(task.rate, run.step, args.steps))
        if rank0:
            rank0.report(run, loss)
            if run.step % args.checkpoint_every == 0 and run.step < args.steps and not stopping:
                rank0.save(run)


def end(run: Run, args: argparse.Namespace, rank0: Rank0) -> None:
    rank0.save(run)
    if run.step == args.steps:
        rank0.finish(run)
    else:
        log(f"stopped at step {run.step} of {args.steps}")


def rate(highest: float, step: int, last: int) -> float:
    """A cosine from `highest` to a hundredth of it."""
    return highest * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / last)))
