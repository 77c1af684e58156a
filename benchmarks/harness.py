"""Fair timing on a machine that is not ours alone: everything interleaved, ratios taken inside a round."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Work = Callable[[], object]
Clock = Callable[[Work], float]


@dataclass(frozen=True)
class Settings:
    """How a run was asked for.

    Args:
        device: Where tensors live, ``"cpu"`` or ``"cuda"``.
        quick: Whether to take just enough rounds to see that everything works.
        seed: Seed of the order in which variants run.
    """

    device: str = "cpu"
    quick: bool = False
    seed: int = 0

    def rounds(self, full: int, *, quick: int) -> int:
        """Number of rounds: ``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Variant:
    """One way to do the job.

    Args:
        name: What the table calls it.
        run: The job, once.
        before: Brings everything back to the start; not timed.
        missing: If the peer cannot run here, what to install; its line in the table says so.
    """

    name: str
    run: Work
    before: Work = lambda: None
    missing: str | None = None


@dataclass(frozen=True)
class Quartiles:
    """Lower quartile, median and upper quartile of a sample."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """Quartiles of one value or more.

        Raises:
            ValueError: If there is no value.

        Example:
            >>> Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0])
            Quartiles(lower=2.0, median=3.0, upper=4.0)
        """
        if not values:
            raise ValueError("values must hold at least one number, got none.")
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def cpu_clock(work: Work) -> float:
    """Seconds that ``work`` takes on the host."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cuda_clock(*, busy: bool) -> Clock:
    """A clock that reads CUDA events.

    Args:
        busy: Whether the GPU still has some milliseconds of work queued when ``work`` begins, as after a
            backward pass. Then only the GPU's own time and waits for the host count; otherwise the host's
            launches count as well.
    """

    def clock(work: Work) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        if busy:
            torch.cuda._sleep(20_000_000)  # cycles: about 10 ms, longer than any launch loop here
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

    return clock


def clocks(device: str) -> dict[str, Clock]:
    """The clocks for a device, each with a remark for the title of the table."""
    if device == "cpu":
        return {"": cpu_clock}
    return {", GPU queue empty": cuda_clock(busy=False), ", GPU queue full": cuda_clock(busy=True)}


def interleave(
    variants: Sequence[Variant], *, rounds: int, clock: Clock = cpu_clock, repeats: int = 1, seed: int = 0
) -> dict[str, list[float]]:
    """Time every variant once a round, each round in a new order.

    Args:
        variants: Those with ``missing`` set are left out.
        rounds: Number of rounds, >= 1.
        clock: Seconds of one piece of work.
        repeats: Times that ``run`` is called in a row for one reading; for jobs of microseconds.
        seed: Seed of the orders.

    Returns:
        Under each name one reading a round, in order [s for one call]: readings with the same index were
        taken right after each other.
    """
    present = [variant for variant in variants if variant.missing is None]
    times: dict[str, list[float]] = {variant.name: [] for variant in present}
    shuffle = random.Random(seed).shuffle
    with no_collection():
        for number in range(-2, rounds):  # two rounds to warm up
            order = list(present)
            shuffle(order)
            for variant in order:
                variant.before()
                seconds = clock(_repeated(variant.run, repeats)) / repeats
                if number >= 0:
                    times[variant.name].append(seconds)
    return times


def ratios(times: dict[str, list[float]], name: str, reference: str) -> Quartiles:
    """How many times longer ``name`` takes than ``reference``, compared within each round."""
    return Quartiles.of([mine / other for mine, other in zip(times[name], times[reference], strict=True)])


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out of the readings."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _repeated(run: Work, repeats: int) -> Work:
    if repeats == 1:
        return run

    def many() -> None:
        for _ in range(repeats):
            run()

    return many
