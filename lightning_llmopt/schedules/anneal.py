"""A cooldown that is asked for while a run is going on."""

import signal
from dataclasses import dataclass
from pathlib import PurePath

from .arguments import Length, falling
from .durations import Duration, parse_duration


@dataclass(frozen=True)
class Anneal:
    """How a run comes to its end when somebody says so: a fall from wherever the rate is, and then a stop.

    Args:
        duration: Length of the fall. A part of the run is one of the run as it will then have been: ``"20%"``
            after 800 updates is 200. By default the length that the schedule has for its own decay, else ``"20%"``.
        shape: Curve of the fall, a key of ``SHAPES`` with its settings.
        floor: Multiplier of the base rate at its end [1].
        file: Name of a file; its appearance in the run's folder starts the fall. ``None`` looks for none.
        signal: Name of a signal that starts it; ``None`` listens to none.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> Anneal(duration="2000 steps", shape="linear").length()
        Duration(amount=Fraction(2000, 1), unit='updates')
    """

    duration: Length | None = None
    shape: str = "sqrt"
    floor: float = 0.0
    file: str | None = "ANNEAL"
    signal: str | None = "SIGUSR2"

    def __post_init__(self) -> None:
        falling("anneal", self.length(), self.floor, self.shape)
        if (length := self.length()) is not None and (length.amount == 0 or (length.relative and length.amount == 1)):
            raise ValueError(f"duration must be more than nothing and less than the whole run, got {self.duration!r}.")
        for name in ("file", "signal"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"{name} must be a name or None, got {value!r}.")
        if self.file is not None and self.file != PurePath(self.file).name:
            raise ValueError(f"file must be a bare name, without a folder, got {self.file!r}.")
        if self.signal not in (None, "SIGUSR2") and not hasattr(signal, str(self.signal)):
            raise ValueError(f"signal must be one that this system has, such as 'SIGUSR2', got {self.signal!r}.")

    def length(self) -> Duration | None:
        """Length of the fall, as it was written."""
        return None if self.duration is None else parse_duration("duration", self.duration)
