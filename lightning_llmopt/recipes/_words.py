"""Values of recipes as people write them."""

from collections.abc import Mapping
from typing import Any

from ..planning.published import short


def in_words(value: Any) -> str:
    """A value for a table."""
    if is_pairs(value):
        pairs = dict(value)
        return _phase(pairs) if "to" in pairs else ", ".join(f"{at}: {level:g}" for at, level in pairs.items())
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" for one in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return short(value) if value >= 1000 else f"{value:g}"
    return str(value)


def is_pairs(value: Any) -> bool:
    """Whether a value is pairs of names and values: a phase, or milestones."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(pair, tuple) for pair in value)


def _phase(phase: Mapping[str, Any]) -> str:
    length = f"until {phase['until']}" if "until" in phase else phase.get("length", "what is left")
    start = f"from {phase['from']:.4g} " if "from" in phase and phase["from"] != phase["to"] else ""
    shape = f", {phase['shape']}" if "shape" in phase else ""
    return f"{length}, {start}to {phase['to']:.4g}{shape}"
