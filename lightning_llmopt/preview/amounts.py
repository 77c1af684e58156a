"""Numbers as people say them: 2k updates, 375M tokens."""

_LETTERS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_ROUNDS_UP = 0.9995  # 999,600 is 1M, not 1e+03k
_BEYOND = 9.995e14


def short(amount: float) -> str:
    """``amount`` in three digits and a letter: k, M, B (1e9), T.

    Example:
        >>> [short(amount) for amount in (0, 250, 2_000, 375_000_000, 1_234_567_890)]
        ['0', '250', '2k', '375M', '1.23B']
    """
    for size, letter in _LETTERS:
        if size * _ROUNDS_UP <= amount < _BEYOND:
            return f"{amount / size:.3g}{letter}"
    return f"{amount:.3g}"


def listed(names: list[str], *, most: int, last: int = 0, between: str = ", ") -> str:
    """The first ``most`` names and the ``last`` last ones; how many stand between is said.

    Example:
        >>> listed(["a", "b", "c", "d", "e"], most=2, last=1)
        'a, b, ... (2 more), e'
    """
    hidden = len(names) - most - last
    if hidden <= 0:
        return between.join(names)
    return between.join([*names[:most], f"... ({hidden:,} more)", *names[len(names) - last :]])
