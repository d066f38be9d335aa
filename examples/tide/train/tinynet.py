"""A dense network in plain lists, small enough to train in the standard library.

A layer is a list of rows, one for each unit: its weights, then its bias. Hidden layers are tanh,
the last is softmax with cross-entropy. Parameters and gradients travel flat.
"""
from __future__ import annotations

import math
import random
from array import array
from itertools import chain
from operator import mul


class Net:
    """The shape of a network: `sizes` = inputs, hidden units, ..., classes."""

    def __init__(self, sizes: list[int]) -> None:
        self.shapes = [(outputs, inputs + 1) for inputs, outputs in zip(sizes, sizes[1:])]
        self.size = sum(rows * columns for rows, columns in self.shapes)

    def initial(self, rng: random.Random) -> list[float]:
        """Uniform weights scaled by the number of inputs (LeCun), biases zero."""
        flat: list[float] = []
        for rows, columns in self.shapes:
            bound = math.sqrt(3.0 / (columns - 1))
            for _ in range(rows):
                flat += [rng.uniform(-bound, bound) for _ in range(columns - 1)] + [0.0]
        return flat

    def layers(self, flat) -> list[list[list[float]]]:
        """Flat parameters as layers of rows."""
        layers, at = [], 0
        for rows, columns in self.shapes:
            layers.append([list(flat[at + i * columns : at + (i + 1) * columns]) for i in range(rows)])
            at += rows * columns
        return layers


def forward(layers, inputs) -> list[list[float]]:
    """The input of every layer, then the class probabilities."""
    seen = [inputs]
    for rows in layers[:-1]:
        # `map` ends with the inputs, so that the row's last entry, the bias, is left for the start.
        seen.append([math.tanh(sum(map(mul, row, seen[-1]), row[-1])) for row in rows])
    logits = [sum(map(mul, row, seen[-1]), row[-1]) for row in layers[-1]]
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    seen.append([power / total for power in powers])
    return seen


def loss_of(probabilities, target: int) -> float:
    """Cross-entropy in nats."""
    return -math.log(max(probabilities[target], 1e-300))


class Gradient:
    """The sum of gradients over examples."""

    def __init__(self, layers) -> None:
        self.layers = layers
        self.columns = [list(zip(*rows))[:-1] for rows in layers]
        self.rows = [[[0.0] * len(row) for row in rows] for rows in layers]
        self.loss = 0.0

    def add(self, inputs, target: int) -> list[float]:
        """Adds one example. Returns the gradient with respect to its inputs."""
        *seen, probabilities = forward(self.layers, inputs)
        self.loss += loss_of(probabilities, target)
        delta = probabilities
        delta[target] -= 1.0
        for depth in range(len(self.layers) - 1, -1, -1):
            before = seen[depth]
            with_bias = [*before, 1.0]
            rows = self.rows[depth]
            for unit, slope in enumerate(delta):
                rows[unit] = [sum_so_far + slope * value for sum_so_far, value in zip(rows[unit], with_bias)]
            delta = [sum(map(mul, delta, column)) for column in self.columns[depth]]
            if depth > 0:
                delta = [slope * (1.0 - value * value) for slope, value in zip(delta, before)]
        return delta

    def flat(self) -> array:
        return array("d", chain.from_iterable(chain.from_iterable(self.rows)))


class Adam:
    """Adam (Kingma and Ba 2014, algorithm 1) over flat parameters."""

    BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8

    def __init__(self, size: int) -> None:
        self.mean = [0.0] * size
        self.square = [0.0] * size

    def apply(self, parameters: list[float], gradient, step: int, rate: float) -> list[float]:
        """The parameters after `step` (from 1)."""
        b1, b2 = self.BETA1, self.BETA2
        self.mean = [b1 * m + (1.0 - b1) * g for m, g in zip(self.mean, gradient)]
        self.square = [b2 * s + (1.0 - b2) * g * g for s, g in zip(self.square, gradient)]
        scale, correction = rate / (1.0 - b1**step), 1.0 / (1.0 - b2**step)
        return [p - scale * m / (math.sqrt(s * correction) + self.EPSILON) for p, m, s in zip(parameters, self.mean, self.square)]
