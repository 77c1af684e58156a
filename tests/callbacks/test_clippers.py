"""Every clipper in a real Trainer, against its rule by hand, and on every strategy against one process."""

import math
from functools import cache

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_llmopt.callbacks import (
    AdaGC,
    AdaptiveGradientClip,
    GradientNormClip,
    GradientNormMonitor,
    GradientValueClip,
    LRSchedule,
    ZClip,
)
from lightning_llmopt.gradients import AdaGCRule, ZClipRule
from lightning_llmopt.schedules import constant
from lightning_llmopt.selftest._fits import fit
from lightning_llmopt.selftest._places import PLACES

from doubles import deepspeed_is_here
from fitting import Gan, MemoryLogger, Regression, loader, trainer
from ranks import on_ranks

CLIPPERS = {
    "norm": lambda: GradientNormClip(0.1),
    "group": lambda: GradientNormClip(0.1, per_group=True),
    "value": lambda: GradientValueClip(0.01),
    "agc": lambda: AdaptiveGradientClip(0.01),
    "zclip": lambda: ZClip(1.5, warmup_steps=2, max_norm=0.2),
    "adagc": lambda: AdaGC(warmup_steps=1, max_norm=0.2),
}
every_clipper = pytest.mark.parametrize("make", CLIPPERS.values(), ids=CLIPPERS.keys())


class Gradients(L.Callback):
    """What the optimizer's step really gets."""

    def __init__(self):
        self.raw, self.seen = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.raw.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        if gradients and len(self.seen) < len(self.raw):
            self.seen.append(gradients)


def clipped(tmp_path, clipper, updates=8, module=None, **settings):
    watch, logger = Gradients(), MemoryLogger()
    settings = {"max_steps": updates, "logger": logger, "log_every_n_steps": 1, **settings}
    run = trainer(tmp_path, clipper, GradientNormMonitor(), watch, **settings)
    run.fit(module or Regression(), loader(4))
    seen = [*watch.seen, {name: p.grad for name, p in run.lightning_module.named_parameters() if p.grad is not None}]
    return watch.raw, seen[: len(watch.raw)], logger.points


def norm(gradients):
    return math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in gradients.values()))


@every_clipper
def test_the_tags_are_the_norms_before_and_after(tmp_path, make):
    raw, seen, points = clipped(tmp_path, make())
    assert len(raw) == len(seen) == 8
    assert list(points["grad_norm/total"].values()) == pytest.approx([norm(update) for update in raw], rel=1e-5)
    assert list(points["grad_norm/clipped"].values()) == pytest.approx([norm(update) for update in seen], rel=1e-5)
    for step, coefficient in points["grad_norm/clip_coefficient"].items():
        assert coefficient == pytest.approx(norm(seen[step]) / norm(raw[step]), rel=1e-5)
    assert min(points["grad_norm/clip_coefficient"].values()) < 0.9


def test_value_clip_is_torchs_clamp(tmp_path):
    raw, seen, _ = clipped(tmp_path, GradientValueClip(0.01))
    for before, after in zip(raw, seen, strict=True):
        for name in before:
            assert torch.equal(after[name], before[name].clamp(-0.01, 0.01))


def test_groups_are_clipped_by_norms_of_their_own(tmp_path):
    raw, seen, _ = clipped(tmp_path, GradientNormClip(0.05, per_group={"head": 0.02}))
    for before, after in zip(raw, seen, strict=True):
        for prefix, limit in (("body", 0.05), ("head", 0.02)):
            group = {name: gradient for name, gradient in before.items() if name.startswith(prefix)}
            factor = min(1.0, limit / (norm(group) + 1e-6))
            for name, gradient in group.items():
                assert after[name] == pytest.approx(gradient * factor, rel=1e-5)


def test_adaptive_clip_keeps_every_unit_below_its_ratio(tmp_path):
    weights = []

    class Weights(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            weights.append({name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()})

    watch = Gradients()
    run = trainer(tmp_path, AdaptiveGradientClip(0.01, exclude=["head.*"]), Weights(), watch, max_steps=4)
    run.fit(Regression(), loader(4))
    seen = [*watch.seen, {name: p.grad for name, p in run.lightning_module.named_parameters()}][:4]
    for before, after, held in zip(watch.raw, seen, weights, strict=True):
        assert torch.equal(after["head.weight"], before["head.weight"])
        limit = 0.01 * held["body.weight"].norm(dim=1, keepdim=True).clamp(min=1e-3)
        size = before["body.weight"].norm(dim=1, keepdim=True)
        expected = torch.where(size > limit, before["body.weight"] * (limit / size), before["body.weight"])
        assert after["body.weight"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stop", [0, 3])
def test_zclip_follows_its_rule_and_goes_on_after_a_resume(tmp_path, stop):
    make = lambda: ZClip(0.5, warmup_steps=3, max_norm=None)  # noqa: E731
    if not stop:
        raw, seen, _ = clipped(tmp_path, make(), updates=12)
        rule = ZClipRule(0.5, warmup_steps=3, max_norm=None)
        state, spikes = rule.start(), 0
        for before, after in zip(raw, seen, strict=True):
            state, limit = rule(state, torch.tensor(norm(before)))
            spikes += float(limit) < norm(before)
            assert norm(after) == pytest.approx(min(norm(before), float(limit)), rel=1e-4)
        assert spikes >= 2
        return
    whole, rest = make(), make()
    trainer(tmp_path, whole, max_steps=12).fit(Regression(), loader(12))
    first = trainer(tmp_path, make(), max_steps=5)
    first.fit(Regression(), loader(12))
    first.save_checkpoint(tmp_path / "stop.ckpt")
    assert torch.load(tmp_path / "stop.ckpt", weights_only=True)["callbacks"]["ZClip"]["states"][0][0] == 5
    same = list(loader(12))[5:]
    run = trainer(tmp_path, rest, max_steps=12)
    run.fit(Regression(), torch.utils.data.DataLoader(same, batch_size=None), ckpt_path=tmp_path / "stop.ckpt")
    assert rest.state_dict()["states"][0][0] == 12


def test_adagc_follows_its_rule(tmp_path):
    raw, seen, _ = clipped(tmp_path, AdaGC(1.01, warmup_steps=2, max_norm=0.3), updates=10)
    rule = AdaGCRule(1.01, warmup_steps=2, max_norm=0.3)
    state = rule.start(4).double()
    for before, after in zip(raw, seen, strict=True):
        norms = torch.tensor([float(gradient.double().norm()) for gradient in before.values()], dtype=torch.float64)
        state, factors = rule(state, norms)
        for (name, gradient), factor in zip(before.items(), factors, strict=True):
            assert after[name] == pytest.approx(gradient * float(factor), rel=1e-4)


class Spoils(Regression):
    """One gradient that is not finite."""

    def __init__(self, at, value):
        super().__init__()
        self.at, self.value = at, value

    def on_after_backward(self):
        if self.trainer.global_step == self.at:
            self.body.weight.grad[0, 0] = self.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("make", [CLIPPERS["zclip"], CLIPPERS["adagc"]], ids=["zclip", "adagc"])
def test_a_norm_that_is_not_finite_leaves_no_trace_in_the_state(tmp_path, make, value):
    clipper = make()
    trainer(tmp_path, clipper, max_steps=6).fit(Spoils(3, value), loader(6))
    assert all(math.isfinite(number) for state in clipper.state_dict()["states"].values() for number in state)


@every_clipper
def test_manual_optimization_with_two_optimizers(tmp_path, make):
    trainer(tmp_path, make(), GradientNormMonitor(1), LRSchedule(constant()), max_epochs=1).fit(Gan(), loader(4))


@pytest.mark.parametrize("make", [CLIPPERS["value"], CLIPPERS["zclip"], CLIPPERS["adagc"]])
def test_the_loss_scale_of_a_fused_optimizer_is_taken_into_account(tmp_path, make):
    def weights_after(scale):
        precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
        module = Regression(torch.optim.AdamW, fused=True)
        trainer(tmp_path, make(), max_steps=4, plugins=[precision]).fit(module, loader(4))
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

    assert weights_after(1024.0) == pytest.approx(weights_after(1.0), rel=2e-3, abs=1e-5)


@every_clipper
def test_two_clippers_are_refused(tmp_path, make):
    run = trainer(tmp_path, make(), GradientNormClip(1.0), max_steps=2)
    with pytest.raises(MisconfigurationException, match="Two clippers: .* and GradientNormClip. Remove Grad"):
        run.fit(Regression(), loader())
    run = trainer(tmp_path, make(), max_steps=2, gradient_clip_val=1.0)
    with pytest.raises(MisconfigurationException, match=r"Two clippers: .* and Trainer\(gradient_clip_val=1.0\)"):
        run.fit(Regression(), loader())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientValueClip(0), "limit must be a finite number > 0, got 0"),
        (lambda: GradientValueClip(True), "limit must be a finite number > 0, got True"),
        (lambda: AdaptiveGradientClip(-1), "clip_factor must be a finite number > 0, got -1"),
        (lambda: AdaptiveGradientClip(min_norm=math.inf), "min_norm must be a finite number > 0, got inf"),
        (lambda: AdaptiveGradientClip(exclude="head"), "exclude must be a list of globs such as .*, got 'head'"),
        (lambda: GradientNormClip(1.0, per_group={"a": 0}), r"per_group\['a'\]: max_norm must be a finite number > 0"),
        (
            lambda: GradientNormClip(1.0, per_group=[1.0]),
            "per_group must be True, False or a dict from groups",
        ),
        (lambda: ZClip(0), "z_max must be a finite number > 0, got 0"),
        (lambda: AdaGC(1.0), "relative must be a finite number > 1, got 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_not_there_is_refused_at_fit_start(tmp_path):
    run = trainer(tmp_path, GradientNormClip(1.0, per_group={"tail": 1.0}), max_steps=2)
    with pytest.raises(MisconfigurationException, match=r"no group 'tail'. The groups are \[\['group0', 'head'\]\]"):
        run.fit(Regression(), loader())
    run = trainer(tmp_path, AdaptiveGradientClip(exclude=["tail.*"]), max_steps=2)
    with pytest.raises(MisconfigurationException, match=r"exclude='tail.\*' matches no parameter. There are \['body"):
        run.fit(Regression(), loader())


WHERE = {
    "value": list(PLACES), "zclip": list(PLACES), "adagc": list(PLACES), "group": list(PLACES),
    "agc": [name for name in PLACES if "FSDP1" not in name and "ZeRO" not in name],
}  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    return cache(lambda kind: fit(folder, "GPT", clipper=CLIPPERS[kind]()))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank found, for all clippers of a strategy in one fork."""
    folder = tmp_path_factory.mktemp("found")

    def fits(rank, name):
        kinds = [kind for kind, places in WHERE.items() if name in places]
        return {kind: fit(folder, "GPT", clipper=CLIPPERS[kind](), place=PLACES[name], rank=rank) for kind in kinds}

    return cache(lambda name: on_ranks(PLACES[name].ranks, fits, name))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in WHERE.items() for name in names])
def test_is_the_same_on_every_strategy(truth, found, kind, name):
    if "ZeRO" in name and not deepspeed_is_here():
        pytest.skip("deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'")
    expected = truth(kind)
    for number, rank in enumerate(found(name)):
        mine = rank[kind]
        assert mine.weights.keys() == expected.weights.keys()
        for key, there in expected.weights.items():
            assert abs(mine.weights[key] - there).max() <= 2e-6 * abs(there).max(), key
        if number == 0:
            for tag in ("grad_norm/total", "grad_norm/clipped", "grad_norm/clip_coefficient"):
                assert mine.points[tag] == pytest.approx(expected.points[tag], rel=2e-6), tag
