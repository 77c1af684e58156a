"""What a reader of a schedule would want to know before the run."""

from collections.abc import Callable, Iterator, Mapping

from ..schedules import Phase, Schedule, ScheduleSpec
from ..schedules.spec import check_total_steps
from .amounts import listed

_LONGEST_WARMUP = 0.1  # of the run; pretraining recipes stay below 5 %
_ENDLESS = 2**63  # a phase this long has no end: schedules for runs without one are made of such


def schedule_warnings(
    schedule: ScheduleSpec | Schedule | Callable[[int], float],
    *,
    total_steps: int,
    groups: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """What looks unintended in a schedule for a run of this length, one sentence or two each.

    Said are: a warmup of more than 10 % of the run, phases that the run cuts short or never reaches, a run that goes on
    after its schedule, a first or last update at rate 0, and groups whose base rate is 0.

    Args:
        schedule: A recipe, a schedule, or a function from the update number to the multiplier.
        total_steps: Length of the run [updates], >= 1.
        groups: Base rate of each group by name, so that rates can be said as well.

    Raises:
        ValueError: If ``total_steps`` is no whole number >= 1, or a recipe does not fit into it.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> schedule_warnings(wsd(warmup=20), total_steps=100)
        ('The warmup takes 20 of 100 updates (20 % of the run; usual: up to 10 %). Shorten it, or lengthen the run.',)
    """
    check_total_steps(total_steps)
    if isinstance(schedule, ScheduleSpec):
        schedule = schedule.resolve(total_steps=total_steps)
    found: list[str] = []
    if isinstance(schedule, Schedule):
        placed = list(_placed(schedule))
        found += _long_warmups(placed, total_steps)
        found += _missed(placed, total_steps, _level(schedule(total_steps - 1), groups))
        found += _outlived(schedule, total_steps, groups)
    return (*found, *_standstills(schedule, total_steps), *_idle_groups(groups or {}))


def _placed(schedule: Schedule) -> Iterator[tuple[Phase, int, int]]:
    """Every phase that has updates, with its first one and one past its last."""
    begin = 0
    for phase in schedule.phases:
        if phase.steps:
            yield phase, begin, begin + phase.steps
        begin += phase.steps


def _long_warmups(placed: list[tuple[Phase, int, int]], total_steps: int) -> Iterator[str]:
    for phase, begin, _ in placed:
        if phase.name == "warmup" and begin < total_steps and phase.steps > _LONGEST_WARMUP * total_steps:
            share = 100 * phase.steps / total_steps
            yield (
                f"The warmup takes {phase.steps:,} of {total_steps:,} updates ({share:.4g} % of the run; usual: up to "
                f"{100 * _LONGEST_WARMUP:.4g} %). Shorten it, or lengthen the run."
            )


def _missed(placed: list[tuple[Phase, int, int]], total_steps: int, level: str) -> Iterator[str]:
    """The run ends before its schedule does."""
    late = [_span(*phase) for phase in placed if phase[1] >= total_steps]
    cut = [
        _span(*phase)
        for phase in placed
        if phase[1] < total_steps < phase[2] and (late or _matters_at_its_end(phase[0]))
    ]
    if not (cut or late):
        return
    parts = [f"ends within {cut[0]}"] if cut else []
    parts += [f"never reaches {listed(late, most=3)}"] if late else []
    whole = placed[-1][2]
    yield (
        f"The run of {total_steps:,} updates {' and '.join(parts)}: its last update, number {total_steps - 1:,}, has "
        f"{level}. Fit the schedule to total_steps={total_steps}"
        + (f", or run all of its {whole:,} updates." if whole < _ENDLESS else ".")
    )


def _matters_at_its_end(phase: Phase) -> bool:
    return phase.start != phase.end and phase.steps < _ENDLESS


def _outlived(schedule: Schedule, total_steps: int, groups: Mapping[str, float] | None) -> Iterator[str]:
    """The run goes on after its schedule, unless that ends in a phase that is flat anyway."""
    last, rest = schedule.phases[-1], total_steps - schedule.total_steps
    if rest > 0 and last.start != last.end:
        yield (
            f"The schedule ends after {schedule.total_steps:,} of {total_steps:,} updates: the other {rest:,} run at "
            f"{_level(last.end, groups)}. Fit it to total_steps={total_steps}, or stop the run with it."
        )


def _standstills(schedule: Callable[[int], float], total_steps: int) -> Iterator[str]:
    last = total_steps - 1
    if schedule(0) == 0:
        yield "The first update, number 0, has rate 0 and changes nothing. Let the rise begin above 0."
    if last > 0 and schedule(last) == 0:
        yield (
            f"The last update, number {last:,}, has rate 0 and changes nothing. Give the fall a floor above 0, or end "
            "the run before it."
        )


def _idle_groups(groups: Mapping[str, float]) -> Iterator[str]:
    if idle := [repr(name) for name, base in groups.items() if base == 0]:
        yield f"Base rate 0, so never updated: {listed(idle, most=3)}. Give them a rate, or take them out."


def _span(phase: Phase, begin: int, end: int) -> str:
    return (
        f"{phase.name!r} (updates {begin:,} to {end - 1:,})" if end < _ENDLESS else f"{phase.name!r} (from {begin:,})"
    )


def _level(multiplier: float, groups: Mapping[str, float] | None) -> str:
    """The multiplier in words, and the rate of the group with the highest one."""
    rate = f" (rate {multiplier * max(groups.values()):.4g})" if groups else ""
    return f"multiplier {multiplier:.4g}{rate}"
