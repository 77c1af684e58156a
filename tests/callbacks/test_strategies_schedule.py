"""The same rates, counts and tokens on every strategy, in real processes."""

import warnings
from functools import cache

import pytest
from lightning.pytorch.callbacks import Callback

from lightning_llmopt.callbacks import HyperparameterSchedule, LRSchedule
from lightning_llmopt.schedules import linear, wsd
from lightning_llmopt.selftest._fits import Subject, loader, quiet_trainer
from lightning_llmopt.selftest._places import PLACES

from doubles import deepspeed_is_here
from ranks import on_ranks

RECIPE = wsd(warmup=2, decay=2, shape="linear")
SCHEDULE = RECIPE.resolve(total_steps=6)
WHOLE = "TransformerEncoder"  # no unused parameter: torch cannot resume FSDP2 where one has no optimizer state
needs_deepspeed = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)
everywhere = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_deepspeed if "ZeRO" in name else ()) for name in PLACES]
)


class Watch(Callback):
    """What the groups hold while a batch is trained on, once an update."""

    def __init__(self, window):
        self.window, self.rates, self.momenta = window, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx % self.window == 0:
            group = trainer.optimizers[0].param_groups[0]
            self.rates.append(group["lr"])
            self.momenta.append(group["momentum"])


def fit(rank, folder, name, window, schedule, *, model="GPT", steps=6, ckpt_path=None, save=None):
    place, watch = PLACES[name], Watch(window)
    momentum = HyperparameterSchedule("momentum", linear(), total=6)
    settings = {"strategy": place.strategy(), "devices": place.ranks, "use_distributed_sampler": False}
    run = quiet_trainer(
        folder, [schedule, momentum, watch], max_steps=steps, accumulate_grad_batches=window, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = loader(rank // place.same_data, place.ranks // place.same_data)
        run.fit(Subject(model, place.shard), data, ckpt_path=ckpt_path)
        if save:
            run.save_checkpoint(save)
    return watch.rates, watch.momenta, schedule.state_dict()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")

    def fits(rank, name):
        windows = {window: fit(rank, folder, name, window, LRSchedule(RECIPE, total=6)) for window in (1, 3)}
        tokens = fit(rank, folder, name, 1, LRSchedule(RECIPE, total="1M tokens"))
        return windows, tokens[2]["clock"]["applied"][0]["tokens"]

    return cache(lambda name: on_ranks(PLACES[name].ranks, fits, name))


@everywhere
@pytest.mark.parametrize("window", [1, 3])
def test_rates_and_counts_are_those_of_one_process(found, name, window):
    for windows, _ in found(name):
        rates, momenta, state = windows[window]
        assert rates == [0.3 * SCHEDULE(step) for step in range(6)]
        assert momenta == pytest.approx([0.9 * (1 - step / 6) for step in range(6)])
        assert state["updates"] == [6]


@everywhere
def test_tokens_of_a_batch_that_ranks_share_count_once(found, name):
    expected = sum(batch.numel() for batch in list(loader())[:6])
    assert {tokens for _, tokens in found(name)} == {expected}


@pytest.mark.parametrize(
    "name",
    ["DDP 2", "FSDP2 2", *[pytest.param(f"ZeRO-{stage} 2", marks=needs_deepspeed) for stage in (1, 2, 3)]],
)
def test_a_resumed_run_goes_on_at_the_same_rates(tmp_path, name):
    path = tmp_path / "stop.ckpt"

    def stopped(rank):
        return fit(rank, tmp_path, name, 1, LRSchedule(RECIPE, total=6), model=WHOLE, steps=3, save=path)[0]

    def resumed(rank):
        return fit(rank, tmp_path, name, 1, LRSchedule(RECIPE, total=6), model=WHOLE, ckpt_path=path)[0]

    for first, rest in zip(on_ranks(2, stopped), on_ranks(2, resumed), strict=True):
        assert [*first, *rest] == [0.3 * SCHEDULE(step) for step in range(6)]
