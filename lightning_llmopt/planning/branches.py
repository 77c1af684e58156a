"""What several finished models cost if they share a trunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class BranchRun:
    """One finished model of several from one trunk.

    Args:
        total: Length of its run, as if it had been trained alone [updates].
        decay: Length of its fall, the only part that is its own [updates].
    """

    total: int
    decay: int

    @property
    def trunk(self) -> int:
        """Update of the trunk at which it leaves."""
        return self.total - self.decay


@dataclass(frozen=True)
class BranchCost:
    """Updates of a trunk and its branches, against one separate run for each length.

    Args:
        runs: The branches, shortest first.
    """

    runs: tuple[BranchRun, ...]

    @property
    def trunk(self) -> int:
        """Length of the trunk [updates]: it ends where the longest branch leaves."""
        return self.runs[-1].trunk

    @property
    def branched(self) -> int:
        """All updates of trunk and branches."""
        return self.trunk + sum(run.decay for run in self.runs)

    @property
    def separate(self) -> int:
        """All updates of separate runs, one for each length."""
        return sum(run.total for run in self.runs)

    @property
    def saved(self) -> float:
        """Part of the separate runs' updates that is saved, in [0, 1)."""
        return 1 - self.branched / self.separate

    def __str__(self) -> str:
        rows = [("run", "trunk until", "cooldown", "new updates", "alone (cosine)")]
        grown = 0
        for run in self.runs:
            new = max(0, run.trunk - grown) + run.decay
            grown = max(grown, run.trunk)
            rows.append((str(run.total), str(run.trunk), str(run.decay), str(new), str(run.total)))
        rows.append(("all", str(self.trunk), str(self.branched - self.trunk), str(self.branched), str(self.separate)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], f"saved: {self.saved:.1%}"])


def branch_cost(*, totals: Sequence[int], decay: float = 0.2) -> BranchCost:
    """What runs of several lengths cost from one trunk.

    For lengths ``T_1 < ... < T_k`` and falls of a part ``q``, trunk and branches take
    ``T_k (1 - q) + q sum(T_i)`` updates, separate runs ``sum(T_i)``.

    Args:
        totals: Length of each run [updates], >= 1, in any order.
        decay: Part of each run that is its fall [1], in (0, 1); rounded down, at least one update.

    Raises:
        ValueError: If there is no length, one comes twice or is no whole number >= 1, or ``decay`` is out of range.

    Source:
        Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Example:
        >>> cost = branch_cost(totals=[1_000, 2_000, 3_000, 4_000], decay=0.2)
        >>> cost.separate, cost.branched, round(cost.saved, 2)
        (10000, 5200, 0.48)
    """
    whole = all(isinstance(total, int) and not isinstance(total, bool) and total >= 1 for total in totals)
    if not totals or not whole or len(set(totals)) < len(totals):
        raise ValueError(f"totals must be different whole numbers of updates >= 1, got {totals!r}.")
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1:
        raise ValueError(f"decay must be a part of the run in (0, 1), got {decay!r}.")
    share = Fraction(repr(float(decay)))
    return BranchCost(tuple(BranchRun(total, max(1, int(total * share))) for total in sorted(totals)))
