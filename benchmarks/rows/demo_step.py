"""A whole training step, with our callbacks and without.

Real Trainers with the same model, optimizer, data and logger (TensorBoard, every 50 steps) take turns in one process;
they differ in their callbacks only. A turn is one step on CPU, timed in CPU seconds of the process (with one thread),
and 50 steps on a GPU, timed by the clock. *The same again* is a second Trainer without callbacks: how far it is from
1 is what this measurement cannot see. The second table has 146 tensors and next to no arithmetic: it shows in
milliseconds what callbacks cost in themselves, and its ratios mean nothing.
"""

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd

from ..demo import BARELY_A_MODEL, DEMO
from ..harness import Quartiles, Settings
from ..tables import Table
from ..turns import LOG_EVERY, Contender, Times, take_turns

WITHOUT = "Trainer without callbacks"
USUAL = "with gradient_clip_val and LambdaLR"
OURS = "with LRSchedule, GradientNormClip and GradientNormMonitor"


def run(settings: Settings) -> list[Table]:
    """The demo, and a model of nearly nothing."""
    cpu = settings.device == "cpu"
    turns = settings.rounds(100 if cpu else 20, quick=4 if cpu else 3)
    turns_of_bare = settings.rounds(500 if cpu else 20, quick=50 if cpu else 3)
    demo = take_turns(_contenders(), DEMO, turns=turns, settings=settings)
    bare = take_turns(_contenders(), BARELY_A_MODEL, turns=turns_of_bare, settings=settings)
    return [
        Table("step of the demo", WITHOUT, demo, notes=[_added(demo, "")]),
        Table("step of nearly nothing", WITHOUT, bare, notes=[_added(bare, ""), *([_added_when_logging(bare)] * cpu)]),
    ]


def _contenders() -> dict[str, Contender]:
    ours = [LRSchedule(wsd(warmup="2%", decay="20%")), GradientNormClip(max_norm=1.0), GradientNormMonitor()]
    return {
        WITHOUT: Contender(),
        "the same again": Contender(),
        USUAL: Contender(clip=1.0, lambda_lr=True),
        OURS: Contender(callbacks=ours),
    }


def _added(times: Times, when: str) -> str:
    """What callbacks add, in milliseconds."""
    ours, usual = (
        Quartiles.of([(mine - bare) * 1e3 for mine, bare in zip(times[name], times[WITHOUT], strict=True)])
        for name in (OURS, USUAL)
    )
    return (
        f"Added to a turn{when}: ours {ours.median:.2f} [{ours.lower:.2f}, {ours.upper:.2f}] ms, gradient_clip_val and "
        f"LambdaLR {usual.median:.2f} [{usual.lower:.2f}, {usual.upper:.2f}] ms."
    )


def _added_when_logging(times: Times) -> str:
    """The same for the turns that log; the first turn, update 0, is not among the readings."""
    logging = {name: values[LOG_EVERY - 2 :: LOG_EVERY] for name, values in times.items()}
    return _added(logging, " that logs")
