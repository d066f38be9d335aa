"""Training job: a language model that guesses the next letter of this project's licence.

The letters before it are looked up in a table of learnt vectors, and a small network says how
likely each letter is to follow (Bengio et al. 2003). Loss is in bits per character.
"""
from __future__ import annotations

import math
import random
import re
from array import array
from pathlib import Path

import elastic
from tinynet import Gradient, Net, forward, loss_of

TEXT = Path(__file__).resolve().parents[3] / "LICENSE"
LETTERS = "abcdefghijklmnopqrstuvwxyz .,;()\"-"
CONTEXT = 4
WIDTH = 6
# Every tenth stretch of this many letters is held out.
STRETCH = 100


class Letters:
    name = "letters"
    batch = 48
    rate = 0.015

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.net = Net([CONTEXT * WIDTH, 24, len(LETTERS)])
        text = [LETTERS.index(letter) for letter in plain(TEXT.read_text(encoding="utf-8"))]
        examples = [(text[i - CONTEXT : i], text[i]) for i in range(CONTEXT, len(text))]
        self.examples = [e for i, e in enumerate(examples) if i // STRETCH % 10 != 9]
        self.held_out = [e for i, e in enumerate(examples) if i // STRETCH % 10 == 9]

    def initial(self) -> list[float]:
        rng = random.Random(f"start/{self.seed}")
        return [rng.uniform(-1.0, 1.0) for _ in range(len(LETTERS) * WIDTH)] + self.net.initial(rng)

    def gradients(self, parameters, step: int, shards: range, count: int) -> dict[int, array]:
        """For each shard: the sums of the gradients of its examples, then of their losses (bits)."""
        table, layers = self.split(parameters)
        examples = random.Random(f"batch/{self.seed}/{step}").choices(self.examples, k=self.batch)
        sums = {}
        for shard in shards:
            gradient = Gradient(layers)
            vectors = [0.0] * (len(LETTERS) * WIDTH)
            for context, target in examples[shard * self.batch // count : (shard + 1) * self.batch // count]:
                slopes = gradient.add(look_up(table, context), target)
                for place, letter in enumerate(context):
                    for i in range(WIDTH):
                        vectors[letter * WIDTH + i] += slopes[place * WIDTH + i]
            sums[shard] = array("d", vectors) + gradient.flat()
            sums[shard].append(gradient.loss / math.log(2.0))
        return sums

    def evaluate(self, parameters, final: bool = False) -> dict[str, float]:
        table, layers = self.split(parameters)
        examples = self.held_out if final else self.held_out[::5]
        nats = sum(loss_of(forward(layers, look_up(table, context))[-1], target) for context, target in examples)
        return {"loss": nats / math.log(2.0) / len(examples)}

    def split(self, parameters):
        size = len(LETTERS) * WIDTH
        table = [parameters[i : i + WIDTH] for i in range(0, size, WIDTH)]
        return table, self.net.layers(parameters[size:])


def plain(text: str) -> str:
    """Lower case, one space between words, nothing but `LETTERS`."""
    kept = "".join(letter if letter in LETTERS else " " for letter in text.lower())
    return re.sub(" +", " ", kept)


def look_up(table, context) -> list[float]:
    return [value for letter in context for value in table[letter]]


if __name__ == "__main__":
    elastic.main(Letters, __doc__)
