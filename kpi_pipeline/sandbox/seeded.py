"""Chance that comes out the same on every machine: everything is drawn from a hash of its name."""

import math
import struct
from hashlib import blake2b

_UNIT = 2.0**-32


def uniforms(*name: object) -> tuple[float, ...]:
    """Sixteen numbers in [0, 1) that belong to this name."""
    digest = blake2b("|".join(map(str, name)).encode()).digest()
    return tuple(number * _UNIT for number in struct.unpack("<16I", digest))


def number(low: int, high: int, *name: object) -> int:
    """A whole number from `low` to `high`, both included, that belongs to this name."""
    return low + int(uniforms(*name)[0] * (high - low + 1))


def poisson(mean: float, chance: float) -> int:
    """A Poisson-distributed count, for a mean below some 500; `chance` is a number in [0, 1)."""
    probability = math.exp(-mean)
    total, count, most = probability, 0, int(4 * mean) + 20
    while chance > total and count < most:
        count += 1
        probability *= mean / count
        total += probability
    return count


def binomial(trials: int, share: float, chance: float) -> int:
    """How many of `trials` succeed with probability `share` (below 1) each."""
    odds = share / (1 - share)
    probability = (1 - share) ** trials
    total, count = probability, 0
    while chance > total and count < trials:
        probability *= odds * (trials - count) / (count + 1)
        count += 1
        total += probability
    return count
