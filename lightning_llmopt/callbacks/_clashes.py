"""Clashes of a schedule with what is there, and with others who write the same entry."""

from .._lightning import MisconfigurationException, Trainer
from ._entries import Entry, ScheduledEntries
from ._optimizers import group_names, optimizer_names


def refuse_absent(trainer: Trainer, who: str, entry: Entry, targeted: set[tuple[int, int]]) -> None:
    """Refuse an entry that no chosen group, as (optimizer, group), has.

    Raises:
        MisconfigurationException: With the entries that there are.
    """
    groups = [trainer.optimizers[index].param_groups[at] for index, at in sorted(targeted)]
    if groups and not any(entry.is_in(group) for group in groups):
        there = sorted(key for key in groups[0] if Entry(key).is_in(groups[0]))
        raise MisconfigurationException(
            f"{who}: no parameter group has a number {entry.name!r}. The first has numbers at {there}."
        )


def refuse_overlap(trainer: Trainer, entry: Entry, both: set[tuple[int, int]], one: str, other: str) -> None:
    """Refuse two schedules for the same entry of the same group.

    Raises:
        MisconfigurationException: Naming both, and both ways out.
    """
    for index, group in sorted(both)[:1]:
        raise MisconfigurationException(
            f"Two schedules for {tag(trainer, entry, index, group)}: {one} and {other}. Give each groups of its own "
            "(optimizer=, group=), or remove one."
        )


def refuse_strangers(trainer: Trainer, who: str, entries: ScheduledEntries, index: int, *, all_groups: bool) -> None:
    """Stop where somebody else writes; the first group is checked every update, all when logging.

    Raises:
        MisconfigurationException: Naming the group, both values, and both ways out.
    """
    for group, written, found in entries.strangers(index, all_groups=all_groups):
        what = "the learning rate" if entries.entry.name == "lr" else entries.entry.name
        raise MisconfigurationException(
            f"Two writers of {what}: {who} wrote {written!r} as {tag(trainer, entries.entry, index, group)}, and "
            f"somebody else (a hook of the module, another callback) has changed it to {found!r}. Remove that writer, "
            f"or remove {who} from the callbacks."
        )


def tag(trainer: Trainer, entry: Entry, index: int, group: int) -> str:
    """What an entry of a group is called in the log."""
    return f"{entry.name}/{optimizer_names(trainer)[index]}/{group_names(trainer.optimizers[index])[group]}"
