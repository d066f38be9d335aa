#!/usr/bin/env python3
"""fat.onnx: 16 -> 4 x [2048x2048 + ReLU] -> 4. Bound by weight bandwidth, so that batching shows on a CPU: make_fat_onnx.py OUT"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
widths, nodes, weights, x = [16, 2048, 2048, 2048, 2048, 2048, 4], [], [], "x"
for i, (rows, columns) in enumerate(zip(widths, widths[1:])):
    weights.append(numpy_helper.from_array((rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32), f"w{i}"))
    last = i == len(widths) - 2
    nodes.append(helper.make_node("MatMul", [x, f"w{i}"], ["y" if last else f"m{i}"]))
    if not last:
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"]))
        x = f"r{i}"
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]) for name, n in (("x", 16), ("y", 4))]
graph = helper.make_graph(nodes, "fat", ends[:1], ends[1:], weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), sys.argv[1])
