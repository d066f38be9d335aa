"""All-reduce among the workers of one attempt: a star over TCP through rank 0.

Each worker sends the gradients of its shards; rank 0 adds all shards *in the order of the shards*,
whoever computed them, and sends the sum back. So the sum, to the last bit, does not depend on the
number of workers. With it travels the wish to stop: when one worker has it, all stop after the
same step.

A worker that dies closes its sockets, and a silent one meets a timeout: the others raise
`WorkerError` and end. Nobody waits for ever.
"""
from __future__ import annotations

import json
import operator
import socket
import struct
import time
from array import array

from tidegate_worker import Contract, Stop, WorkerError, log

# Workers start at different moments, and the port of the previous attempt may be closing still.
RENDEZVOUS_SECONDS = 30.0
# Protects rank 0 from a length sent by something that is no worker.
MAX_FRAME_BYTES = 256 << 20
LENGTH = struct.Struct(">I")


class StoppedEarly(Exception):
    """SIGTERM came before the first step: there is nothing to save."""


class Group:
    """The workers of one attempt. `peers` holds, at rank 0, a socket for each other rank, in rank
    order; elsewhere the one socket to rank 0."""

    def __init__(self, contract: Contract, stop: Stop, silence_seconds: float) -> None:
        self.rank, self.size = contract.rank, contract.world_size
        self.peers: list[socket.socket] = []
        if self.size > 1:
            self.peers = _gather_peers(contract, stop) if self.rank == 0 else [_join(contract, stop)]
        for peer in self.peers:
            peer.settimeout(silence_seconds)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_error) -> None:
        for peer in self.peers:
            peer.close()

    def shards(self, count: int, rank: int | None = None) -> range:
        """The shards of `count` that a rank computes."""
        return range(self.rank if rank is None else rank, count, self.size)

    def share(self, message: bytes) -> bytes:
        """Rank 0's message, at every rank."""
        if self.rank == 0:
            for peer in self.peers:
                _send(peer, message)
            return message
        return _receive(self.peers[0])

    def all_reduce(self, shards: dict[int, array], count: int, wish: bool) -> tuple[array, bool]:
        """The sum over all `count` shards, and whether any worker wishes to stop."""
        if self.rank > 0:
            _send(self.peers[0], bytes([wish]) + b"".join(shards[i].tobytes() for i in self.shards(count)))
            return _unpack(_receive(self.peers[0]))
        for rank, peer in enumerate(self.peers, start=1):
            theirs, wished = _unpack(_receive(peer))
            wish = wish or wished
            mine = self.shards(count, rank)
            width = len(theirs) // max(len(mine), 1)
            shards.update((shard, theirs[i * width : (i + 1) * width]) for i, shard in enumerate(mine))
        total = shards[0]
        for shard in range(1, count):
            total = array("d", map(operator.add, total, shards[shard]))
        self.share(bytes([wish]) + total.tobytes())
        return total, wish


def _unpack(frame: bytes) -> tuple[array, bool]:
    values = array("d")
    values.frombytes(frame[1:])
    return values, frame[:1] == b"\x01"


def _gather_peers(contract: Contract, stop: Stop) -> list[socket.socket]:
    until = time.monotonic() + RENDEZVOUS_SECONDS
    peers: dict[int, socket.socket] = {}
    with _listen(contract, stop, until) as listener:
        listener.settimeout(0.1)
        while len(peers) < contract.world_size - 1:
            missing = sorted(set(range(1, contract.world_size)) - set(peers))
            _check(stop, until, f"ranks {missing} did not come")
            try:
                peer, _address = listener.accept()
            except socket.timeout:
                continue
            rank = _welcome(peer, contract)
            if rank in missing:
                peers[rank] = peer
            else:
                peer.close()
    return [peers[rank] for rank in sorted(peers)]


def _listen(contract: Contract, stop: Stop, until: float) -> socket.socket:
    while True:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((contract.master_addr, contract.master_port))
            listener.listen(contract.world_size)
            return listener
        except OSError as error:
            listener.close()
            _check(stop, until, f"cannot listen on {contract.master_addr}:{contract.master_port}: {error}")
            stop.wait(0.1)


def _welcome(peer: socket.socket, contract: Contract) -> int | None:
    """The rank that calls, or None when it is not of this attempt (a late one of the attempt before)."""
    peer.settimeout(5.0)
    try:
        hello = json.loads(_receive(peer))
        same = all(hello[key] == value for key, value in _identity(contract).items())
        return hello["rank"] if same else None
    except (WorkerError, ValueError, KeyError, TypeError) as error:
        log(f"a caller on the port of rank 0 was no worker: {error}")
        return None


def _join(contract: Contract, stop: Stop) -> socket.socket:
    until = time.monotonic() + RENDEZVOUS_SECONDS
    address = (contract.master_addr, contract.master_port)
    while True:
        try:
            peer = socket.create_connection(address, timeout=2.0)
            break
        except OSError as error:
            _check(stop, until, f"rank 0 does not answer on {address[0]}:{address[1]}: {error}")
            stop.wait(0.1)
    _send(peer, json.dumps({**_identity(contract), "rank": contract.rank}).encode())
    return peer


def _identity(contract: Contract) -> dict:
    return {"job": contract.job, "attempt": contract.attempt, "world_size": contract.world_size}


def _check(stop: Stop, until: float, problem: str) -> None:
    if stop.requested:
        raise StoppedEarly
    if time.monotonic() > until:
        raise WorkerError(f"the workers did not meet within {RENDEZVOUS_SECONDS:.0f} s: {problem}")


def _send(peer: socket.socket, message: bytes) -> None:
    try:
        peer.sendall(LENGTH.pack(len(message)) + message)
    except OSError as error:
        raise WorkerError(f"a peer is gone: {error}") from error


def _receive(peer: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_receive_exactly(peer, LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise WorkerError(f"a frame of {length} bytes is too long")
    return _receive_exactly(peer, length)


def _receive_exactly(peer: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        try:
            part = peer.recv(length - len(parts))
        except OSError as error:
            raise WorkerError(f"a peer is gone or silent: {error}") from error
        if not part:
            raise WorkerError("a peer closed its connection")
        parts += part
    return bytes(parts)
