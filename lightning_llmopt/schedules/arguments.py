"""What the recipes have in common: their arguments, read and refused in one place."""

from .durations import Duration, parse_duration
from .shapes import shape_named
from .spec import PhaseSpec, ScheduleSpec

Length = int | float | str


def share_of(name: str, value: float) -> float:
    """``value`` as a float in [0, 1], or a refusal.

    Raises:
        ValueError: If it is no such number; ``name`` is what the user called it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number in [0, 1] (a share), got {value!r}.")
    return float(value)


def point(name: str, at: Length) -> Duration:
    """A point of the run, counted from its beginning, that is not the beginning.

    Raises:
        ValueError: If it is no length, or 0.
    """
    duration = parse_duration(name, at)
    if duration.amount == 0:
        raise ValueError(f"{name} must come in order and after 0, got {at!r}.")
    return duration


def between_ends(name: str, shape: str) -> str:
    """The bare name of a shape that goes from one given end to another, settings left off.

    Raises:
        ValueError: If it is no shape, or a law in updates that leads wherever it leads.
    """
    kind = shape_named(name, shape)[0].__name__
    if kind in ("power_law", "halving"):
        recipes = {"power_law": "inverse_sqrt or power", "halving": "half_life"}[kind]
        raise ValueError(f"{name} must be a curve between two ends, got {shape!r}; for that law use {recipes}.")
    return kind


def rising(warmup: Length, shape: str, start: float, *, shape_name: str = "warmup_shape") -> PhaseSpec:
    """The warmup: from ``start`` to 1.

    Raises:
        ValueError: If an argument is out of range, or the shape is ``"exponential"`` and ``start`` is 0.
    """
    phase = PhaseSpec("warmup", parse_duration("warmup", warmup), share_of("warmup_start", start), 1.0, shape)
    exponential = between_ends(shape_name, shape) == "exponential"
    if exponential and start == 0 and phase.duration != parse_duration("warmup", 0):
        raise ValueError(f"{shape_name} 'exponential' needs warmup_start > 0, got {start!r}.")
    return phase


def falling(name: str, duration: Duration | None, floor: float, shape: str, *, start: float | None = 1.0) -> PhaseSpec:
    """A fall to ``floor``, from 1 or (``start=None``) from where the phase before it ends.

    Raises:
        ValueError: If an argument is out of range, or the shape is ``"exponential"`` and ``floor`` is 0.
    """
    low = share_of("floor", floor)
    if between_ends("shape", shape) == "exponential" and low == 0:
        raise ValueError(f"shape 'exponential' needs floor > 0, got {floor!r}.")
    return PhaseSpec(name, duration, start, low, shape)


def rise_and_fall(recipe: str, rise: PhaseSpec, floor: float, shape: str) -> ScheduleSpec:
    """A warmup, and one fall to the end of the run.

    Raises:
        ValueError: If an argument is out of range.
    """
    return ScheduleSpec(recipe, (rise, falling("decay", None, floor, shape)))
