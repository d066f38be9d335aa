#!/usr/bin/env python3
"""Trains the example's small model and exports it as ONNX.

A multi-layer perceptron (64 -> 64 ReLU -> 10 softmax) on the 8x8 handwritten digits that scikit-learn carries.
Writes `digits.onnx` and `digits.md` beside this file, the same bytes every time:

    python3 -m venv /tmp/digits && /tmp/digits/bin/pip install scikit-learn==1.9.1 numpy==2.4.6 onnx==1.23.2
    /tmp/digits/bin/python examples/tide/models/train_digits.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20
HIDDEN = 64
# Pixels are 0..16. The scale is folded into the first weights, so that clients send pixels as they are.
PIXEL_MAX = 16.0
HERE = Path(__file__).resolve().parent


def train():
    """The fitted classifier, and the held-out images and labels (a fifth of 1797)."""
    digits = load_digits()
    images, held_out_images, labels, held_out_labels = train_test_split(
        digits.data / PIXEL_MAX, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    classifier = MLPClassifier(hidden_layer_sizes=(HIDDEN,), max_iter=400, random_state=SEED)
    classifier.fit(images, labels)
    return classifier, held_out_images * PIXEL_MAX, held_out_labels


def export(classifier):
    """An ONNX model: `image` FP32 [batch,64], pixels 0..16 -> `probabilities` FP32 [batch,10]."""
    (w1, w2), (b1, b2) = classifier.coefs_, classifier.intercepts_
    weights = {"w1": w1 / PIXEL_MAX, "b1": b1, "w2": w2, "b2": b2}
    nodes = [
        helper.make_node("Gemm", ["image", "w1", "b1"], ["hidden"], name="layer1"),
        helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"], name="layer2"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def exported_accuracy(model, images, labels):
    """Accuracy of the exported graph itself, so that the stated figure is that of the file."""
    from onnx.reference import ReferenceEvaluator

    (probabilities,) = ReferenceEvaluator(model).run(None, {"image": images.astype(np.float32)})
    return float((probabilities.argmax(axis=1) == labels).mean())


def main():
    classifier, images, labels = train()
    model = export(classifier)
    accuracy = exported_accuracy(model, images, labels)
    onnx.save(model, HERE / "digits.onnx")
    size = (HERE / "digits.onnx").stat().st_size
    text = f"""# digits.onnx

Handwritten digits, 8x8 pixels: `image` FP32 [batch,64] (pixel values 0..16, row by row) -> `probabilities` FP32 [batch,10].

* Accuracy {accuracy:.4f} on {len(labels)} held-out images (a fifth of scikit-learn's digits, stratified; measured on the exported graph)
* Multi-layer perceptron 64 -> {HIDDEN} ReLU -> 10 softmax, opset 17, {size} bytes, seed {SEED}
* Data: scikit-learn's `load_digits` (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0)

Made by `train_digits.py` with scikit-learn 1.9.1, numpy 2.4.6, onnx 1.23.2; the script states the command.
"""
    (HERE / "digits.md").write_text(text)
    print(f"digits.onnx: {size} bytes, accuracy {accuracy:.4f} on {len(labels)} held-out images, seed {SEED}")


if __name__ == "__main__":
    main()
