"""Finished models from one trunk: a cooldown from a checkpoint, and several at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from .._lightning import Callback, LightningModule, Trainer, rank_zero_only
from ..planning import BranchCost, branch_cost
from ..schedules import Anneal, Phase, ScheduleSpec, constant, from_plain, spec_from_plain
from ..schedules.arguments import Length
from .lr_schedule import LRSchedule

_GOING_DOWN = ("decay", "cooldown", "anneal", "warmup")


def branch(
    checkpoint: str | Path, *, decay: Length, shape: str = "sqrt", floor: float = 0.0, **settings: Any
) -> LRSchedule:
    """The callback that turns a checkpoint of the stable phase into a finished model.

    The run goes on from the checkpoint at its rates, falls from the first update on, and stops at the end of the
    fall. Give it to a Trainer that trains at least that long (``max_epochs=-1`` is enough), and the same
    checkpoint to ``fit``::

        trainer = Trainer(callbacks=[branch("trunk.ckpt", decay=2_000)], max_epochs=-1)
        trainer.fit(module, loader, ckpt_path="trunk.ckpt")

    Args:
        checkpoint: File (or folder, if sharded) that a Trainer with ``LRSchedule`` has written.
        decay: Length of the fall; a part of the run is one of the run as it will then have been.
        shape: Curve of the fall, a key of ``SHAPES`` with its settings.
        floor: Multiplier of the base rate at its end [1].
        **settings: What else ``LRSchedule`` takes, such as ``tokens=`` or ``during={"anneal": {"beta2": 0.99}}``.

    Raises:
        ValueError: If an argument is out of range, there is no such checkpoint, it was written without
            ``LRSchedule``, or it lies in a warmup or in a decay.

    Source:
        Hägele et al. 2024, https://arxiv.org/abs/2405.18392.
    """
    anneal = Anneal(duration=decay, shape=shape, floor=floor)
    refused = {"on_change", "anneal", "total"} & settings.keys()
    if refused:
        raise ValueError(f"branch takes no {sorted(refused)}: it keeps the checkpoint's schedule, and cools down.")
    callback = LRSchedule(constant(), on_change="keep", anneal=anneal, **settings)
    _check_trunk(Path(checkpoint), callback.state_key)
    callback._anneal_from_start = True
    return callback


@dataclass(frozen=True)
class Branches:
    """What ``branch_many`` has made.

    Args:
        cost: Updates of the trunk and of each branch, against separate runs.
        results: What ``fit`` returned for each branch, by the length of its run.
        checkpoints: Where each branch left the trunk, by the length of its run.
    """

    cost: BranchCost
    results: dict[int, Any]
    checkpoints: dict[int, Path]

    def __str__(self) -> str:
        return str(self.cost)


Fit = Callable[[list[Callback], Path | None], Any]


def branch_many(
    fit: Fit,
    *,
    totals: Sequence[int],
    folder: str | Path,
    warmup: Length = 0,
    decay: float = 0.2,
    shape: str = "sqrt",
    floor: float = 0.0,
) -> Branches:
    """Finished models for several lengths from one trunk, and what that saves against separate cosine runs.

    The trunk runs at a constant rate and is saved wherever a branch leaves it; each branch is the last part of a
    run of its length. A trunk checkpoint that is in ``folder`` already is used again.

    Args:
        fit: ``fit(callbacks, ckpt_path)`` makes a fresh module, loader and Trainer with these callbacks (among others,
            and no end before the longest total: ``max_epochs=-1``), calls ``trainer.fit(..., ckpt_path=ckpt_path)``,
            and returns whatever is wanted of the result, such as a validation loss.
        totals: Length of each run [updates], >= 1.
        folder: Where the trunk's checkpoints go.
        warmup: Length of the trunk's rise [updates].
        decay: Part of each run that is its fall [1], in (0, 1).
        shape: Curve of the fall, a key of ``SHAPES`` with its settings.
        floor: Multiplier of the base rate at its end [1].

    Returns:
        Results and costs; the table is printed too.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Hägele et al. 2024, https://arxiv.org/abs/2405.18392; saved is ``1 - (T_k (1 - q) + q sum(T_i)) / sum(T_i)``.
    """
    cost = branch_cost(totals=totals, decay=decay)
    Anneal(duration=1, shape=shape, floor=floor)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = {run.total: folder / f"trunk-{run.trunk}.ckpt" for run in cost.runs}
    _grow_trunk(fit, cost, checkpoints, _trunk(cost, warmup))
    results = {}
    for run in cost.runs:
        callback = branch(checkpoints[run.total], decay=run.decay, shape=shape, floor=floor)
        results[run.total] = fit([callback], checkpoints[run.total])
    rank_zero_only(print)(cost)
    return Branches(cost, results, checkpoints)


def _trunk(cost: BranchCost, warmup: Length) -> ScheduleSpec:
    """The trunk's schedule; its warmup has to be over where the first branch leaves."""
    spec = constant(warmup=warmup)
    phase = spec.resolve(total_steps=cost.trunk).phase_at(cost.runs[0].trunk)
    if phase.name == "warmup":
        raise ValueError(
            f"warmup must be over where the first branch leaves, at update {cost.runs[0].trunk}, got {warmup!r}."
        )
    return spec


def _grow_trunk(fit: Fit, cost: BranchCost, checkpoints: dict[int, Path], spec: ScheduleSpec) -> None:
    """Train the trunk as far as its longest branch, from the last checkpoint that is there."""
    folder = next(iter(checkpoints.values())).parent
    grown = _grown(folder, spec.resolve(total_steps=cost.trunk).phases[:-1])
    missing = [run for run in cost.runs if not checkpoints[run.total].exists()]
    if not missing:
        return
    there = [file for update, file in sorted(grown.items()) if update < missing[0].trunk]
    schedule = LRSchedule(spec, total=cost.trunk, anneal=Anneal(file=None, signal=None))
    saves = _SaveTrunk(schedule, {run.trunk: checkpoints[run.total] for run in missing}, end=cost.trunk)
    fit([schedule, saves], there[-1] if there else None)


def _grown(folder: Path, warmup: tuple[Phase, ...]) -> dict[int, Path]:
    """Trunk checkpoints that are there, by their update; they must have had the same warmup."""
    grown = {int(file.stem.split("-")[1]): file for file in folder.glob("trunk-*.ckpt") if file.stem[6:].isdigit()}
    for file in grown.values():
        state = _state_in(file, "LRSchedule") or {}
        plan = state.get("plan") or {}
        if "phases" in plan and from_plain(plan["phases"]).phases[:-1] != warmup:
            raise ValueError(
                f"folder must be empty or have a trunk with the same warmup, got {str(folder)!r}, whose trunk was "
                f"{state['said']['schedule']}. Name another folder, or that warmup."
            )
    return grown


class _SaveTrunk(Callback):
    """Saves at the given updates, and stops at the last."""

    def __init__(self, schedule: LRSchedule, places: dict[int, Path], end: int) -> None:
        self.schedule, self.places, self.end = schedule, dict(places), end

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop where that is due."""
        count = min(self.schedule.counts)
        if (path := self.places.pop(count, None)) is not None:
            trainer.save_checkpoint(path)
        if count >= self.end:
            trainer.should_stop = True


def _check_trunk(checkpoint: Path, state_key: str) -> None:
    """Refuse a checkpoint that no branch can leave from."""
    file = checkpoint / "meta.pt" if checkpoint.is_dir() else checkpoint
    if not file.is_file():
        raise ValueError(f"checkpoint must be one that a Trainer has written, and there is no {str(file)!r}.")
    state = _state_in(file, state_key)
    if not state or "plan" not in state:
        raise ValueError(
            f"checkpoint must be one of a Trainer with LRSchedule in its callbacks, got {str(checkpoint)!r}."
        )
    if state["plan"] is None:
        raise ValueError(
            f"checkpoint must have a schedule that can be written down, got a function in {str(checkpoint)!r}. Resume "
            "it with that function, and call LRSchedule.anneal_now."
        )
    for count, name in zip(state["updates"], _phases_of(state), strict=True):
        if name.split(" ")[0] in _GOING_DOWN:
            raise ValueError(
                f"checkpoint must lie in a stable phase, got update {count} of {str(checkpoint)!r}, which is in "
                f"{name!r}. Take an earlier one, or cool down from anywhere with LRSchedule.anneal_now."
            )


def _state_in(file: Path, state_key: str) -> dict[str, Any] | None:
    """What the callback of that key has saved."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("callbacks", {}).get(state_key)


def _phases_of(state: dict[str, Any]) -> list[str]:
    """Name of the phase that each optimizer is in."""
    plan, playing, seconds = state["plan"], state["playing"], state["clock"]["seconds"]
    if any(playing["cooldowns"]):
        return ["anneal"] * len(state["updates"])
    if "timed" in plan and any(course["ends"] for course in playing.get("timed", [])):
        phases = spec_from_plain(plan["timed"]).phases
        return [phases[course["leg"]].name for course in playing["timed"]]
    if "spec" in plan:
        phases = spec_from_plain(plan["spec"]).phases
        return [phases[course["leg"]].name for course in playing["courses"]]
    places = zip(state["updates"], state["clock"]["applied"], strict=True)
    schedule = from_plain(plan["phases"])
    return [
        schedule.phase_at({"updates": count, "seconds": seconds, **place}[plan["unit"]]).name for count, place in places
    ]
