"""What tensor parallelism cuts: the layers that a plan names, and along which dimension."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

ROWS = ("colwise", "colwise_gather_output", "colwise_rep")
COLUMNS = ("rowwise", "embedding_rowwise", "rowwise_rep")


def cuts_of(model: Any, plan: Mapping[str, str] | None = None) -> dict[str, int] | None:
    """Names of the parameters that are cut with their dimension, as the presets ``tp`` and ``fsdp2_tp`` do it.

    Args:
        model: A module.
        plan: Globs of module names to styles; by default the one that a Hugging Face model brings along.

    Returns:
        The cuts, or ``None`` if there is no plan.

    Raises:
        ValueError: If ``plan`` is none, has an unknown style, or a glob matches no module.
    """
    refuse_no_plan(plan)
    globs = own_plan(model) if plan is None else dict(plan)
    if globs is None:
        return None
    named = dict(model.named_modules())
    cuts: dict[str, int] = {}
    for glob, style in globs.items():
        if style not in (*ROWS, *COLUMNS):
            raise ValueError(
                f"A style of tensor_parallel_plan must be one of {[*ROWS, *COLUMNS]}, got {style!r} at {glob!r}."
            )
        names = [name for name in named if matches(name, glob)]
        if not names:
            raise ValueError(
                f"A glob of tensor_parallel_plan must match a module of {type(model).__name__}, got {glob!r}: write "
                "names as named_modules() does, or leave it out."
            )
        for name in names:
            cuts |= {f"{name}.{key}": cut for key, cut in _cuts(named[name], by_rows=style in ROWS)}
    return cuts


def own_plan(model: Any) -> dict[str, str] | None:
    """``base_model_tp_plan`` of the Hugging Face model inside, with its names as ``model`` has them.

    Returns:
        Globs of module names to styles, or ``None`` if there is no such model, or it has none.
    """
    for name, part in model.named_modules():
        plan = getattr(getattr(part, "config", None), "base_model_tp_plan", None)
        if plan:
            prefix = getattr(part, "base_model_prefix", "")
            base = f"{name}.{prefix}" if prefix and hasattr(part, prefix) else name
            return {f"{base}.{glob}".lstrip("."): style for glob, style in plan.items()}
    return None


def matches(name: str, glob: str) -> bool:
    """Whether a module of this name is meant, part by part.

    Example:
        >>> matches("blocks.3.up", "blocks.*.up"), matches("blocks.3.up", "blocks.*")
        (True, False)
    """
    parts, globs = name.split("."), glob.split(".")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def refuse_no_plan(plan: Any) -> None:
    """Raise for what is neither None nor a dict of globs to words.

    Raises:
        ValueError: Naming what was given; an empty dict would split nothing.
    """
    words = isinstance(plan, Mapping) and all(isinstance(word, str) for pair in plan.items() for word in pair)
    if plan is not None and not (plan and words):
        raise ValueError(
            f"tensor_parallel_plan must be a dict of one glob or more to names of styles, or None, got {plan!r}."
        )


def _cuts(part: Any, *, by_rows: bool) -> Iterator[tuple[str, int]]:
    """Of a linear layer rows with their biases, or columns; tables are stored the other way round."""
    table = hasattr(part, "num_embeddings")
    yield "weight", int(by_rows == table)
    if by_rows and not table and getattr(part, "bias", None) is not None:
        yield "bias", 0
