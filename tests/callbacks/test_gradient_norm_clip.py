"""Clipping through a real Trainer, against torch's and Lightning's own."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor

from fitting import Gan, MemoryLogger, Norms, Regression, loader, trainer, weights
from ranks import on_ranks


@pytest.mark.parametrize("accumulate", [1, 3])
def test_trains_to_the_same_weights_as_lightnings_own_clipping(tmp_path, accumulate):
    ours, theirs = Regression(), Regression()
    settings = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    trainer(tmp_path, GradientNormClip(0.5), **settings).fit(ours, loader())
    trainer(tmp_path, gradient_clip_val=0.5, **settings).fit(theirs, loader())
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)
    plain = Regression()
    trainer(tmp_path, **settings).fit(plain, loader())
    assert not torch.allclose(weights(ours), weights(plain), rtol=1e-3)


def test_every_callback_sees_the_raw_gradient_wherever_it_stands(tmp_path):
    before, after, alone = Norms(), Norms(), Norms()
    callbacks = [before, GradientNormClip(1e-3), after, ModelCheckpoint(tmp_path)]
    run = trainer(tmp_path, *callbacks, enable_checkpointing=True, max_steps=1)
    run.fit(Regression(), loader())
    trainer(tmp_path, alone, max_steps=1).fit(Regression(), loader())
    assert before.first == after.first == alone.first
    assert isinstance(run.callbacks[-1], ModelCheckpoint)


def test_the_optimizer_gets_a_gradient_of_at_most_the_bound(tmp_path):
    class Note(Regression):
        """Lightning calls the module after all callbacks."""

        def on_before_optimizer_step(self, optimizer):
            self.norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]).item()

    module = Note()
    trainer(tmp_path, GradientNormClip(0.25), max_steps=1).fit(module, loader())
    assert module.norm == pytest.approx(0.25, rel=1e-5)


def test_manual_optimization_clips_each_optimizer_by_its_own_norm(tmp_path):
    seen = []

    class Note(Gan):
        def on_before_optimizer_step(self, optimizer):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            seen.append(torch.nn.utils.get_total_norm(gradients).item())

    trainer(tmp_path, GradientNormClip(1e-4), max_epochs=1).fit(Note(), loader(3))
    assert seen == pytest.approx([1e-4] * 6, rel=2e-2)  # the 1e-6 in the denominator is 1 % of this bound


@pytest.mark.parametrize("fused", [False, True])
def test_under_fp16_the_bound_is_on_the_unscaled_gradient(tmp_path, fused):
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    settings = {"fused": fused, "betas": (0.0, 0.0), "eps": 1.0}  # eps of 1: the update depends on the gradient's size
    ours, theirs = (Regression(torch.optim.AdamW, **settings) for _ in range(2))
    monitor = GradientNormMonitor(every_n_steps=1)
    run = trainer(tmp_path, GradientNormClip(0.25), monitor, max_steps=3, plugins=[precision])
    run.fit(ours, loader())
    trainer(tmp_path, GradientNormClip(0.25), max_steps=3).fit(theirs, loader())
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=2e-3, atol=2e-4)
    assert run.callback_metrics["grad_norm/total"] < 100
    assert run.callback_metrics["grad_norm/clipped"] == pytest.approx(0.25, rel=1e-3)


def test_a_gradient_that_is_not_finite_is_not_spread(tmp_path):
    class Poisoned(Regression):
        def on_after_backward(self):
            self.head.bias.grad.fill_(math.nan)

    module = Poisoned()
    trainer(tmp_path, GradientNormClip(1.0), max_steps=1).fit(module, loader())
    assert torch.isnan(module.head.bias).all()
    assert torch.isfinite(module.body.weight).all()


def test_two_processes_clip_by_the_norm_of_the_averaged_gradient(tmp_path):
    def fit(rank):
        module, norms = Regression(), Norms()
        data = list(loader(4))
        half = torch.utils.data.DataLoader([data[index] for index in range(rank, 4, 2)], batch_size=None)
        run = trainer(
            tmp_path,
            norms,
            GradientNormClip(0.5),
            max_epochs=1,
            devices=2,
            strategy="ddp",
            use_distributed_sampler=False,
        )
        run.fit(module, half)
        return norms.first, weights(module).tolist()

    first, second = on_ranks(2, fit)
    assert first == second
    together = Regression()
    data = list(loader(4))
    pairs = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(data[::2], data[1::2], strict=True)]
    norms = Norms()
    run = trainer(tmp_path, norms, GradientNormClip(0.5), max_epochs=1)
    run.fit(together, torch.utils.data.DataLoader(pairs, batch_size=None))
    assert first[0] == pytest.approx(norms.first, rel=1e-6)
    torch.testing.assert_close(torch.tensor(first[1]), weights(together), rtol=1e-6, atol=1e-7)


def test_a_huge_spike_moves_the_weights_as_any_other_that_is_clipped(tmp_path):
    """Its squares overflow in fp32; what counts after clipping is its direction."""

    def fit(spike):
        class Spikes(Regression):
            def training_step(self, batch, batch_idx):
                return super().training_step(batch, batch_idx) * (spike if batch_idx == 1 else 1.0)

        module = Spikes()
        trainer(tmp_path, GradientNormClip(1.0), max_steps=4).fit(module, loader())
        return weights(module)

    torch.testing.assert_close(fit(1e25), fit(1e4), rtol=1e-5, atol=1e-6)


# clashes and bad values


def test_a_second_clipper_is_refused_with_both_ways_out(tmp_path):
    run = trainer(tmp_path, GradientNormClip(1.0), gradient_clip_val=2.0, max_steps=1)
    with pytest.raises(
        MisconfigurationException,
        match=r"GradientNormClip and Trainer\(gradient_clip_val=2.0\). Remove gradient_clip_val, or remove Grad",
    ):
        run.fit(Regression(), loader())


def test_a_module_that_clips_by_itself_is_pointed_out(tmp_path):
    class Clips(Regression):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            pass

    with pytest.warns(UserWarning, match="Clips.configure_gradient_clipping runs after GradientNormClip"):
        trainer(tmp_path, GradientNormClip(1.0), max_steps=1).fit(Clips(), loader())


@pytest.mark.parametrize("max_norm", [-1, 0, math.nan, math.inf, None, "1.0"])
def test_refuses_a_bound_that_is_none(max_norm):
    with pytest.raises(ValueError, match=f"max_norm must be a finite number > 0, got {max_norm!r}"):
        GradientNormClip(max_norm=max_norm)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_folded_into_a_fused_step_it_is_the_same_clipping(tmp_path, optimizer, accumulate):
    def trained(folded):
        module, logger = Regression(optimizer, fused=True), MemoryLogger()
        callbacks = [GradientNormClip(0.05, folded=folded), GradientNormMonitor(1)]
        settings = {"max_steps": 6, "accumulate_grad_batches": accumulate, "logger": logger}
        trainer(tmp_path, *callbacks, **settings).fit(module, loader(6))
        return weights(module), logger.points, module

    (plain, points, _), (folded, folded_points, module) = trained(False), trained(True)
    assert folded == pytest.approx(plain, rel=1e-5, abs=1e-8)
    for tag in ("grad_norm/total", "grad_norm/clipped", "grad_norm/clip_coefficient"):
        assert folded_points[tag] == pytest.approx(points[tag], rel=1e-4)
    assert not hasattr(module.trainer.optimizers[0], "grad_scale")


@pytest.mark.parametrize(
    ("settings", "fused", "reason"),
    [
        ({}, False, "SGD is not fused"),
        (
            {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]},
            True,
            "the fp16 scaler uses the",
        ),
    ],
)
def test_folding_that_cannot_be_is_refused(tmp_path, settings, fused, reason):
    run = trainer(tmp_path, GradientNormClip(1.0, folded=True), max_steps=2, **settings)
    with pytest.raises(MisconfigurationException, match=rf"folded=True\) cannot be: {reason}.* or folded=False"):
        run.fit(Regression(fused=fused), loader())


@pytest.mark.parametrize("wrong", [{"folded": 1}, {"folded": True, "per_group": True}])
def test_folded_is_a_choice_for_the_whole_gradient(wrong):
    with pytest.raises(ValueError, match="folded must be True or False, and False with per_group, got"):
        GradientNormClip(1.0, **wrong)
