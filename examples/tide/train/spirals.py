"""Training job: three spirals wound into each other, told apart by a small network."""
from __future__ import annotations

import math
import random
from array import array

import elastic
from tinynet import Gradient, Net, forward, loss_of

SPIRALS = 3
TURNS = 1.25
NOISE = 0.02


class Spirals:
    name = "spirals"
    batch = 48
    rate = 0.02

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.net = Net([2, 20, 20, SPIRALS])
        rng = random.Random(f"spirals/{seed}")
        self.points = [point(rng) for _ in range(900)]
        self.held_out = [point(rng) for _ in range(600)]

    def initial(self) -> list[float]:
        return self.net.initial(random.Random(f"start/{self.seed}"))

    def gradients(self, parameters, step: int, shards: range, count: int) -> dict[int, array]:
        """For each shard: the sums of the gradients of its examples, then of their losses."""
        layers = self.net.layers(parameters)
        examples = random.Random(f"batch/{self.seed}/{step}").choices(self.points, k=self.batch)
        sums = {}
        for shard in shards:
            gradient = Gradient(layers)
            for inputs, target in examples[shard * self.batch // count : (shard + 1) * self.batch // count]:
                gradient.add(inputs, target)
            sums[shard] = gradient.flat()
            sums[shard].append(gradient.loss)
        return sums

    def evaluate(self, parameters, final: bool = False) -> dict[str, float]:
        layers = self.net.layers(parameters)
        points = self.held_out if final else self.held_out[:200]
        loss, right = 0.0, 0
        for inputs, target in points:
            probabilities = forward(layers, inputs)[-1]
            loss += loss_of(probabilities, target)
            right += probabilities[target] == max(probabilities)
        return {"loss": loss / len(points), "accuracy": right / len(points)}


def point(rng: random.Random) -> tuple[list[float], int]:
    """A noisy point and the spiral that it is on."""
    spiral = rng.randrange(SPIRALS)
    along = math.sqrt(rng.random())
    angle = 2.0 * math.pi * (TURNS * along + spiral / SPIRALS)
    return [2.0 * along * math.cos(angle) + rng.gauss(0, NOISE), 2.0 * along * math.sin(angle) + rng.gauss(0, NOISE)], spiral


if __name__ == "__main__":
    elastic.main(Spirals, __doc__)
