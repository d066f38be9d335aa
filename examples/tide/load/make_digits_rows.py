#!/usr/bin/env python3
"""Writes digits-rows.csv: images that `../models/digits.onnx` has never seen and gets right, with their labels.

The load client sends them, and takes an answer with another likeliest class for another row's answer. So the rows are
held-out ones on which the model is sure. Needs what `../models/train_digits.py` needs; the same bytes every time:

    /tmp/digits/bin/python examples/tide/load/make_digits_rows.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from train_digits import train  # noqa: E402

PER_CLASS = 8
SURE = 0.95


def main():
    _classifier, images, labels = train()
    (answers,) = ReferenceEvaluator(onnx.load(HERE.parent / "models" / "digits.onnx")).run(None, {"image": images.astype(np.float32)})
    lines = [
        "# label, then 8x8 pixels from 0 to 16. Held-out images of scikit-learn's digits (UCI \"Optical Recognition of",
        "# Handwritten Digits\", CC BY 4.0) that digits.onnx gets right. Made by make_digits_rows.py.",
    ]
    for label in range(10):
        sure = [i for i in range(len(labels)) if labels[i] == label and answers[i][label] >= SURE][:PER_CLASS]
        lines += [",".join(str(int(cell)) for cell in [label, *np.rint(images[i])]) for i in sure]
    (HERE / "digits-rows.csv").write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 2} rows")


if __name__ == "__main__":
    main()
