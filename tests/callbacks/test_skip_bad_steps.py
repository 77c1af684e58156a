"""A skipped update leaves no trace: everything is bit for bit as if its batches had not been there."""

import math
import os
import random
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.tensor import DTensor

from lightning_llmopt.callbacks import (
    GradientNormClip,
    GradientNormMonitor,
    HyperparameterSchedule,
    LRSchedule,
    SkipBadSteps,
)
from lightning_llmopt.callbacks._spikes import AcceptedValues
from lightning_llmopt.schedules import wsd
from lightning_llmopt.selftest._places import PLACES, fsdp1

from doubles import deepspeed_is_here
from fitting import Gan, MemoryLogger, Regression, Watch, loader, trainer, weights
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings(
    "ignore:SkipBadSteps. update", "ignore:You're using the WeightAveraging callback"
)

INJECTIONS = int(os.environ.get("INJECTIONS", "300"))  # in all; `make injections` runs 10,000
UPDATES, BAD = 24, 10  # updates of a fit with injections, and how many of them are bad
NOT_FINITE = (math.nan, math.inf, -math.inf)


# injections: any element, update and rank


class Network(torch.nn.Module):
    """Tied, frozen and unused parameters beside the usual ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.norm, self.head = torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)
        self.second.weight = self.first.weight
        self.frozen = torch.nn.Linear(4, 4).requires_grad_(False)
        self.unused = torch.nn.Parameter(torch.zeros(3))

    def forward(self, inputs):
        return self.head(self.norm(torch.tanh(self.second(self.frozen(torch.tanh(self.first(inputs)))))))


class Poisoned(L.LightningModule):
    """Trains on batches that say what is wrong with them: ``(inputs, bad)``."""

    def __init__(self, rank=0, shard=None):
        super().__init__()
        self.rank, self.shard, self.sharded = rank, shard, False
        self.net = Network()

    def configure_model(self):
        if self.shard is not None and not self.sharded:
            self.sharded = True
            self.shard(self.net, self.device_mesh)

    def training_step(self, batch, batch_idx):
        inputs, self.bad = batch
        loss = (self.net(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
        if self.bad and self.bad["kind"] == "loss" and self.bad["rank"] == self.rank:
            loss = loss * self.bad["value"]
        return loss

    def on_after_backward(self):
        if self.bad and self.bad["kind"] == "element" and self.bad["rank"] == self.rank:
            gradients = [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]
            local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
            flat = [gradient.view(-1) for gradient in local if gradient.numel()]
            chosen = flat[self.bad["parameter"] % len(flat)]
            chosen[self.bad["element"] % len(chosen)] = self.bad["value"]

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


class AtTheEnd(L.Callback):
    """Weights before an average takes their place."""

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.weights = [_whole(parameter) for parameter in pl_module.parameters()]


def _whole(value):
    return value.to_local().clone() if isinstance(value, DTensor) else value.detach().clone()


def plan(seed, ranks):
    """Batches of each update, what is bad about some of them, and the fit's settings."""
    draw = random.Random(seed)
    accumulate = draw.choice((1, 1, 2))
    bad = {}
    for update in draw.sample(range(UPDATES), BAD):
        bad[update] = {
            "kind": draw.choice(("element", "element", "element", "loss")), "value": draw.choice(NOT_FINITE),
            "rank": draw.randrange(ranks), "parameter": draw.randrange(1000), "element": draw.randrange(1000),
            "micro": draw.randrange(accumulate),
        }  # fmt: skip
    return accumulate, bad


def batches(seed, rank, accumulate, bad, *, without):
    """All batches of a rank; ``without`` leaves out the bad updates."""
    generator = torch.Generator().manual_seed(seed * 10 + rank)
    made = []
    for update in range(UPDATES):
        for micro in range(accumulate):
            inputs = torch.randn(2, 4, generator=generator)
            if not (without and update in bad):
                here = update in bad and bad[update]["micro"] == micro
                made.append((inputs, bad[update] if here else {}))
    return made


def one_fit(folder, seed, rank=0, ranks=1, *, strategy="auto", shard=None, averages=True, without):
    """Everything that a fit leaves behind."""
    accumulate, bad = plan(seed, ranks)
    skip, end = SkipBadSteps(window=8), AtTheEnd()
    schedule = LRSchedule(wsd(warmup=3, decay=4), total=UPDATES, during={"decay": {"beta2": 0.9}})
    decay = HyperparameterSchedule("weight_decay", wsd(warmup=3, decay=4), total=UPDATES)
    callbacks = [schedule, skip, decay, GradientNormClip(1.0), end]
    if averages:
        callbacks.insert(seed % 4, EMAWeightAveraging(decay=0.5, update_every_n_steps=2))
    module = Poisoned(rank, shard)
    data = batches(seed, rank, accumulate, bad, without=without)
    run = trainer(
        folder, *callbacks, max_epochs=1, accumulate_grad_batches=accumulate, strategy=strategy, devices=ranks,
        use_distributed_sampler=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(module, torch.utils.data.DataLoader(data, batch_size=None))
    state = run.optimizers[0].state_dict()
    return {
        "weights": end.weights,
        "averaged": [_whole(parameter) for parameter in module.parameters()],
        "state": [_whole(value) for entries in state["state"].values() for value in entries.values()],
        "groups": [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]],
        "updates": (schedule.counts, decay.counts, schedule.state_dict()["rates"], decay.state_dict()["rates"]),
        "accepted": skip.state_dict()["accepted"],
        "skipped": skip.skipped - (0 if without else BAD),
    }


def differences(one, other):
    """What is not bit-equal."""
    found = [key for key in ("groups", "updates", "accepted", "skipped") if one[key] != other[key]]
    for key in ("weights", "averaged", "state"):
        same = len(one[key]) == len(other[key]) and all(map(torch.equal, one[key], other[key]))
        found += [] if same and all(bool(value.isfinite().all()) for value in one[key]) else [key]
    return found


def many_fits(rank, folder, seeds, ranks, **settings):
    """Seeds at which the poisoned fit and the one without the bad updates differ, and in what."""
    make = settings.pop("strategy", lambda: "auto")
    wrong = {}
    for seed in seeds:
        fits = [one_fit(folder, seed, rank, ranks, strategy=make(), **settings, without=out) for out in (False, True)]
        if found := differences(*fits):
            wrong[seed] = found
    return wrong


def sharded(net, mesh):
    torch.distributed.fsdp.fully_shard(net, mesh=mesh["data_parallel"])


WHERE = {
    "one process": (0.5, 1, {}),
    "DDP 2": (0.25, 2, {"strategy": partial(DDPStrategy, find_unused_parameters=True)}),
    "FSDP2 2": (0.25, 2, {"strategy": PLACES["FSDP2 2"].strategy, "shard": sharded, "averages": False}),
}


CHUNK = 60  # fits of one test: it has a time limit
CHUNKS = [
    pytest.param(where, range(start, min(start + CHUNK, fits)), id=f"{where}, {fits * BAD} injections from {start * BAD}")
    for where, (share, *_) in WHERE.items()
    for fits in [math.ceil(INJECTIONS * share / BAD)]
    for start in range(0, fits, CHUNK)
]


@pytest.mark.parametrize(("where", "seeds"), CHUNKS)
def test_a_run_with_bad_updates_is_bit_equal_to_the_run_without_them(tmp_path, where, seeds):
    _, ranks, settings = WHERE[where]
    if ranks == 1:
        assert many_fits(0, tmp_path, seeds, 1, **settings) == {}
    else:
        assert on_ranks(ranks, partial(many_fits, **settings), tmp_path, seeds, ranks) == [{}] * ranks
