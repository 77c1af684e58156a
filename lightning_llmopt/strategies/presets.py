"""Trainer arguments by name."""

from typing import Any

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
_NAMES = ("fp32", "bf16", "ddp")


def preset(name: str, *, precision: str | None = None) -> dict[str, Any]:
    """Arguments for ``Trainer(...)`` that say on what to run.

    - ``"fp32"``: everything in single precision.
    - ``"bf16"``: matrix products in bfloat16 by autocast; weights, gradients and optimizer state in fp32,
      no loss scaling.
    - ``"ddp"``: a whole model on every device, gradients averaged; ``precision`` is its own choice.

    The number of devices is left to the Trainer.

    Args:
        name: One of the above.
        precision: For ``"ddp"``, ``"bf16"`` (default) or ``"fp32"``.

    Returns:
        A plain dict of Trainer arguments, yours to change.

    Raises:
        ValueError: If ``name`` or ``precision`` is unknown, or ``precision`` contradicts ``name``.

    Example:
        >>> preset("bf16")
        {'precision': 'bf16-mixed'}
        >>> preset("ddp", precision="fp32")
        {'strategy': 'ddp', 'precision': '32-true'}
    """
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"preset must be one of {list(_NAMES)}, got {name!r}.")
    if precision is not None and (not isinstance(precision, str) or precision not in _PRECISIONS):
        raise ValueError(f"precision must be one of {list(_PRECISIONS)}, got {precision!r}.")
    if name == "ddp":
        return {"strategy": "ddp", "precision": _PRECISIONS[precision or "bf16"]}
    if precision not in (None, name):
        raise ValueError(
            f"preset {name!r} and precision={precision!r} contradict each other: "
            f"use preset({precision!r}), or leave precision out."
        )
    return {"precision": _PRECISIONS[name]}
