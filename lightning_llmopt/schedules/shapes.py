"""Unit curves: how a phase divides its way from start value to end value.

A shape takes the share of the phase that is over and the share that is left (they add up to 1, each
rounded on its own) and returns the share of the way that is gone and the share still to go. Both are
computed without cancellation, so a rate keeps all its digits at either end of a run of any length.

To add a shape, write a decorated function here and stop: recipes find it by name, the docs list this
module, and the tests hold every entry to the same laws.
"""

import math
from collections.abc import Callable

Shape = Callable[[float, float], tuple[float, float]]

SHAPES: dict[str, Shape] = {}


def _shape(curve: Shape) -> Shape:
    """Enter ``curve`` into SHAPES under its own name."""
    SHAPES[curve.__name__] = curve
    return curve


@_shape
def linear(over: float, left: float) -> tuple[float, float]:
    """The same step every update.

    Example:
        >>> linear(0.25, 0.75)
        (0.25, 0.75)
    """
    return over, left


@_shape
def cosine(over: float, left: float) -> tuple[float, float]:
    """Slow, fast, slow: half a cosine wave, in the sin² form that is exact near both ends.

    Source: Loshchilov & Hutter 2017 (SGDR), https://arxiv.org/abs/1608.03983, eq. 5.

    Example:
        >>> [round(share, 3) for share in cosine(0.25, 0.75)]
        [0.146, 0.854]
    """
    return math.sin(math.pi / 2 * over) ** 2, math.sin(math.pi / 2 * left) ** 2


@_shape
def sqrt(over: float, left: float) -> tuple[float, float]:
    """Fast, then slower and slower: the "1-sqrt" cooldown.

    Source: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Example:
        >>> sqrt(0.25, 0.75)
        (0.5, 0.5)
    """
    root = math.sqrt(over)
    return root, left / (1.0 + root)
