"""One value of a recipe, with where it stands and how far that was checked."""

from dataclasses import dataclass
from typing import Any

CHECKED = {
    "source": "read in the source itself or a copy of it",
    "quoted": "read in somebody else's quotation or summary of the source",
    "unverified": "not found where it should stand",
    "rescaled": "worked out from the published values",
}
"""How far a value was checked, and what that means."""

UNITS = {
    "size": "parameters", "batch": "tokens", "total": "tokens", "schedule.floor": "of peak",
    "schedule.start": "of peak", "schedule.share": "of the first", "schedule.milestones": "of peak",
}  # fmt: skip
"""Of values that are numbers; one that is not here has none, and a text says its own."""


@dataclass(frozen=True)
class Receipt:
    """A value and where it comes from.

    Args:
        name: What it is, such as ``"peak_lr"`` or ``"schedule.warmup"``.
        value: A number, a text, a tuple of numbers, or pairs of a phase or of milestones.
        source: Author, year, link and place.
        checked: A key of ``CHECKED``.
        doubt: What is not known of it; not "" if it is unverified.
        remark: What goes with it.

    Raises:
        ValueError: If ``checked`` is none of these, or something is unverified without a reason.
    """

    name: str
    value: Any
    source: str
    checked: str
    doubt: str = ""
    remark: str = ""

    def __post_init__(self) -> None:
        if self.checked not in CHECKED:
            raise ValueError(f"{self.name}: checked must be one of {list(CHECKED)}, got {self.checked!r}.")
        if (self.checked == "unverified") != bool(self.doubt):
            raise ValueError(f"{self.name}: what is unverified needs a doubt and nothing else has one.")

    @property
    def unit(self) -> str:
        """Its unit; "" where it has none, or the value says it itself."""
        return "" if isinstance(self.value, str) else UNITS.get(self.name, "")

    @property
    def verified(self) -> bool:
        """Whether it was read in the source itself."""
        return self.checked == "source"


@dataclass(frozen=True)
class Change:
    """What rescaling has made of a value, and why.

    Attributes:
        name: Of the value.
        before: As published, in words.
        after: As it is now, in words.
        why: The rule, and who says so.
    """

    name: str
    before: str
    after: str
    why: str
