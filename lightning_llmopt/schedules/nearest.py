"""What somebody who mistyped a name may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(got: object, known: Iterable[str]) -> str:
    """A question to put behind a message, with a space before it; nothing if no known name is near.

    Args:
        got: What was written.
        known: What could have been.

    Example:
        >>> did_you_mean("warmpu", ["decay", "warmup", "warmup_shape"])
        " Did you mean 'warmup'?"
        >>> did_you_mean("x", ["decay"])
        ''
    """
    near = get_close_matches(got, list(known), n=1) if isinstance(got, str) else []
    return f" Did you mean {near[0]!r}?" if near else ""
