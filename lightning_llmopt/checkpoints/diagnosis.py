"""What there is to say about a checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass

LEVELS = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: ``"ok"``; ``"note"``, worth knowing; ``"warning"``, worth a look; or ``"error"``, a fault.
        text: What was found.

    Raises:
        ValueError: If there is no such level.
    """

    level: str
    text: str

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {list(LEVELS)}, got {self.level!r}.")

    def __str__(self) -> str:
        return f"{self.level:<8} {self.text}"


@dataclass(frozen=True)
class Contents:
    """What a Trainer has written down beside the weights.

    Args:
        step: Updates so far, over all optimizers; ``None`` if it is not told.
        epoch: Number of the epoch, from 0.
        version: Of Lightning.
        callbacks: Keys of the callbacks with a state, as they are saved.
        schedule: Where each schedule stands, one line for each optimizer of it.
    """

    step: int | None = None
    epoch: int | None = None
    version: str | None = None
    callbacks: tuple[str, ...] = ()
    schedule: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """As a reader wants it."""
        if self.step is not None or self.epoch is not None:
            yield f"at update {self.step}, epoch {self.epoch}, written by Lightning {self.version}"
        if self.callbacks:
            yield f"state of: {', '.join(key.partition('{')[0] for key in self.callbacks)}"
        yield from self.schedule


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a path after a look that ran nothing of it.

    Args:
        path: What was looked at.
        kind: What it is, such as ``"checkpoint file"``.
        findings: What was found, in the order of looking.
        contents: What the Trainer has written down there.
        parts: The checkpoints of a run's folder.

    Example:
        >>> str(Diagnosis("run.ckpt", "checkpoint file", (Finding("error", "cut short"),)))
        'run.ckpt: checkpoint file, 1 fault\\n  error    cut short'
    """

    path: str
    kind: str
    findings: tuple[Finding, ...]
    contents: Contents = Contents()
    parts: tuple["Diagnosis", ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error, here or in a part."""
        return not self.faults

    @property
    def faults(self) -> tuple[Finding, ...]:
        """All errors, those of the parts included."""
        own = tuple(finding for finding in self.findings if finding.level == "error")
        return own + tuple(fault for part in self.parts for fault in part.faults)

    def __str__(self) -> str:
        number = len(self.faults)
        verdict = "no faults" if not number else "1 fault" if number == 1 else f"{number} faults"
        lines = [f"{self.path}: {self.kind}, {verdict}"]
        lines += [f"  {line}" for line in self.contents.lines()]
        lines += [f"  {finding}" for finding in self.findings]
        for part in self.parts:
            lines += [f"  {line}" for line in str(part).splitlines()]
        return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """Without what a terminal would obey: names in a checkpoint are anybody's."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line)
