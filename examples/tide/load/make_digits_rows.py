#!/usr/bin/env python3
"""Writes digits-rows.csv: digits drawn below by hand, jittered, that `../models/digits.onnx` is sure about, with their labels.

The load client sends them, and takes an answer with another likeliest class for another row's answer. Needs numpy and
onnx; the same bytes every time:

    python3 examples/tide/load/make_digits_rows.py
"""

import random
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

HERE = Path(__file__).resolve().parent
PER_CLASS = 8
SURE = 0.9
SEED = 1
INK = {".": 0, "-": 5, "+": 10, "#": 16}

DRAWN = [
    "..-##-.. .-####-. .+#..#+. .##..-#. .#+..-#. .##..+#. .-#++#-. ..+##-..",
    "...-#+.. ..-##+.. .-###+.. .+-##-.. ...##-.. ...##-.. ...##-.. ..-##+..",
    "..+##-.. .+####.. .#-.##.. ....##.. ...+#-.. ..+#+... .+###++- ..####++",
    "..####-. .-+-+##. ....+#-. ..-###.. ...-+##. .....+#. .+-.-##. .-####-.",
    "....-#-. ...-#+.. ..-#+... .-#+.-+. .##--##. .+#####- ...-##.. ....#+..",
    "..+####. ..##++-. ..##-... ..####-. ...-+##. .....##. ..+-+#+. ..+##+..",
    "...+#-.. ..-##... ..##-... ..#+.... .-####+. .-##-+#. ..##-+#. ...+##-.",
    "..-####- ..+++##- .....#+. ...-+#-. .-######. ...##-.. ..-#+... ..+#-...",
    "..+##+.. .-#++#-. .-#++#-. ..-##+.. ..-##+.. .-#+-#+. .-#+-##. ..+##+..",
    "..-###-. .-#+-##. .+#-.##. ..#####. ...-+##. .....##. ..-.+#+. ..+##+..",
]


def draw(text):
    return np.array([[INK[cell] for cell in row[:8].ljust(8, ".")] for row in text.split()], dtype=np.float32).reshape(64)


def main():
    model = ReferenceEvaluator(onnx.load(HERE.parent / "models" / "digits.onnx"))
    dice = random.Random(SEED)
    lines = ["# label, then 8x8 pixels from 0 to 16. Drawn and jittered by make_digits_rows.py; digits.onnx gets all of them right."]
    for label, text in enumerate(DRAWN):
        found = []
        for _ in range(20_000):
            row = np.array([min(16, max(0, round(cell + dice.gauss(0, 2.5)))) if dice.random() < 0.6 else cell for cell in draw(text)], dtype=np.float32)
            (answer,) = model.run(None, {"image": row.reshape(1, 64)})
            if answer[0].argmax() == label and answer[0][label] >= SURE:
                found.append(row)
            if len(found) == PER_CLASS:
                break
        else:
            raise SystemExit(f"only {len(found)} of {PER_CLASS} rows for {label}: draw it more clearly")
        lines += [",".join(str(int(cell)) for cell in [label, *row]) for row in found]
    (HERE / "digits-rows.csv").write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 1} rows")


if __name__ == "__main__":
    main()
