"""The worker's side of Tidegate's training contract (docs/training-contract.md), standard library only.

Copy this file into a training of your own, whatever it computes with:

    Contract     what the environment says about this worker
    Stop         SIGTERM becomes a wish that is looked at between steps
    Checkpoints  files that are whole or absent; the newest whole one is loaded
    Progress     reports to Tidegate from a thread, so that no step ever waits for them
"""
from __future__ import annotations

import collections
import fcntl
import hashlib
import http.client
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path


class WorkerError(Exception):
    """This worker cannot go on. Its exit code is 1 and its last line says why."""


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Contract:
    """What Tidegate tells a worker. With nothing set: alone, without checkpoints or reports."""

    rank: int
    world_size: int
    master_addr: str
    master_port: int
    job: str
    attempt: int
    checkpoint_dir: Path | None
    progress_url: str | None

    @classmethod
    def from_environment(cls, environ=os.environ) -> Contract:
        def whole(name: str, default: int) -> int:
            text = environ.get(name, str(default))
            try:
                return int(text)
            except ValueError:
                raise WorkerError(f"{name}={text!r} is not a whole number") from None

        folder = environ.get("TIDEGATE_CHECKPOINT_DIR")
        contract = cls(
            rank=whole("RANK", 0),
            world_size=whole("WORLD_SIZE", 1),
            master_addr=environ.get("MASTER_ADDR", "127.0.0.1"),
            master_port=whole("MASTER_PORT", 0),
            job=environ.get("TIDEGATE_JOB", ""),
            attempt=whole("TIDEGATE_ATTEMPT", 1),
            checkpoint_dir=Path(folder) if folder else None,
            progress_url=environ.get("TIDEGATE_PROGRESS_URL") or None,
        )
        if not 0 <= contract.rank < contract.world_size:
            raise WorkerError(f"RANK={contract.rank} is not below WORLD_SIZE={contract.world_size}")
        if contract.world_size > 1 and contract.master_port == 0:
            raise WorkerError(f"WORLD_SIZE={contract.world_size} needs MASTER_PORT")
        return contract


class Stop:
    """Turns SIGTERM (and Ctrl-C) into `requested`. Make it first, in the main thread."""

    def __init__(self) -> None:
        self.requested = False
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        signal.set_wakeup_fd(self._told.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number, _frame) -> None:
        self.requested = True

    def wait(self, seconds: float) -> None:
        """Sleeps, but not past a signal."""
        if seconds > 0 and not self.requested:
            select.select([self._heard], [], [], seconds)


class Checkpoints:
    """Checkpoints of rank 0 in one folder: the newest two, each a checksum line and a JSON line.

    A file gets its name only once it is on the disk, so a kill at any moment leaves the older
    ones whole. A file that is broken all the same is put aside and the one before it is used.
    """

    KEEP = 2
    # The previous attempt's rank 0 may still be ending when the next one starts.
    LOCK_SECONDS = 10.0

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._lock = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._take_lock(folder / "lock")

    def _take_lock(self, path: Path) -> None:
        """Two rank 0 in one folder would overwrite each other's work; a dead one's lock is free."""
        self._lock = open(path, "w", encoding="ascii")
        until = time.monotonic() + self.LOCK_SECONDS
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise WorkerError(f"another worker holds {path}; this attempt must not run beside it") from None
                time.sleep(0.05)

    def save(self, step: int, state: dict) -> None:
        """Returns once the checkpoint is on the disk."""
        if self.folder is None:
            return
        body = json.dumps(state).encode()
        write_whole(self.folder / f"step-{step:010d}.ckpt", hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        for old in self._newest_first()[self.KEEP :]:
            old.unlink()

    def load(self) -> dict | None:
        """The newest whole checkpoint, or None for a fresh start."""
        for path in self._newest_first():
            checksum, _, body = path.read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() == checksum:
                return json.loads(body)
            log(f"checkpoint {path.name} is broken and put aside; trying the one before it")
            path.replace(path.with_name("broken"))
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.ckpt"), reverse=True) if self.folder else []


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new, never a part."""
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Progress:
    """Reports of rank 0 to Tidegate. While it is down they wait: the newest figures and the last
    checkpoints, nothing else. `stale` turns true when a newer attempt has replaced this one."""

    # Newer notices say more than older ones, so a bound loses nothing that matters.
    MAX_CHECKPOINT_NOTICES = 16
    TIMEOUT_SECONDS = 5.0
    BACKOFF_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __init__(self, url: str | None) -> None:
        self.stale = False
        self._url = urllib.parse.urlsplit(url) if url else None
        self._figures: dict | None = None
        self._checkpoints: collections.deque = collections.deque(maxlen=self.MAX_CHECKPOINT_NOTICES)
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._post_all, name="progress", daemon=True)
        if self._url:
            self._thread.start()

    def report(self, step: int, metrics: dict | None = None, checkpoint: int | None = None) -> None:
        """Hands over a report and returns at once. `checkpoint`: the step of a complete one."""
        if not self._url:
            return
        line: dict = {"step": step, "metrics": {k: v for k, v in (metrics or {}).items() if math.isfinite(v)}}
        with self._changed:
            if checkpoint is None:
                self._figures = line
            else:
                self._checkpoints.append({**line, "checkpoint": {"step": checkpoint}})
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Gives what is pending this long to arrive."""
        if self._url:
            with self._changed:
                self._closing = True
                self._changed.notify()
            self._thread.join(seconds)

    def _post_all(self) -> None:
        failures = 0
        while not self.stale:
            with self._changed:
                self._changed.wait_for(lambda: self._figures or self._checkpoints or self._closing)
                figures, notices = self._figures, list(self._checkpoints)
            if not figures and not notices:
                return
            try:
                self._post(sorted(notices + ([figures] if figures else []), key=lambda line: line["step"]))
                failures = 0
                self._forget(figures, notices)
            except (OSError, http.client.HTTPException):
                self._back_off(failures)
                failures += 1

    def _back_off(self, failures: int) -> None:
        with self._changed:
            if not self._closing:
                seconds = self.BACKOFF_SECONDS[min(failures, len(self.BACKOFF_SECONDS) - 1)]
                self._changed.wait_for(lambda: self._closing, seconds)
                return
        time.sleep(self.BACKOFF_SECONDS[0])

    def _forget(self, figures: dict | None, notices: list) -> None:
        with self._changed:
            if self._figures is figures:
                self._figures = None
            for notice in notices:
                if notice in self._checkpoints:
                    self._checkpoints.remove(notice)

    def _post(self, lines: list) -> None:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.netloc, timeout=self.TIMEOUT_SECONDS)
        try:
            target = urllib.parse.urlunsplit(("", "", self._url.path or "/", self._url.query, ""))
            body = "".join(json.dumps(line) + "\n" for line in lines)
            connection.request("POST", target, body.encode(), {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            text = answer.read(4096).decode(errors="replace").strip()
        finally:
            connection.close()
        if answer.status in (409, 410):
            self.stale = True
        elif answer.status in (408, 429) or answer.status >= 500:
            raise http.client.HTTPException(f"status {answer.status}")
        elif answer.status >= 400:
            log(f"a progress report was refused with {answer.status}: {text}")
