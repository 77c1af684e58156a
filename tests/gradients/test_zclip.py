"""ZClip against the authors' algorithm, written out in plain Python."""

import math
import random

import pytest
import torch

from lightning_llmopt.gradients import ZClipRule


def reference(norms, *, z_max=2.5, alpha=0.97, warmup_steps=25, max_norm=1.0, mode="adaptive", factor=1.0):
    """Limits for a stream of norms, as the official code has them, in floats; infinite where there is none."""
    buffer, mean, variance, limits = [], None, None, []
    for norm in norms:
        if not math.isfinite(norm):
            limits.append(None)
            continue
        limit = math.inf
        if mean is None:
            buffer.append(norm)
            if len(buffer) == warmup_steps:
                mean = sum(buffer) / len(buffer)
                variance = sum((x - mean) ** 2 for x in buffer) / len(buffer)
        else:
            deviation = variance**0.5
            z = (norm - mean) / (deviation + 1e-6)
            if z > z_max:
                eta = z / z_max
                limit = {
                    "adaptive": (mean + z_max * deviation / eta) * factor, "mean": mean,
                    "percentile": mean + z_max * deviation,
                }[mode]  # fmt: skip
            accepted = min(norm, limit)
            mean = alpha * mean + (1 - alpha) * accepted
            variance = alpha * variance + (1 - alpha) * (accepted - mean) ** 2
        limits.append(min(limit, math.inf if max_norm is None else max_norm))
    return limits


def stream(length, seed=0):
    draw = random.Random(seed)
    return [math.exp(draw.gauss(-0.5, 0.2)) * (5 if draw.random() < 0.03 else 1) for _ in range(length)]


def limits_of(rule, norms):
    state, limits = rule.start(), []
    for norm in norms:
        state, limit = rule(state, torch.tensor(norm, dtype=torch.float64))
        limits.append(limit.item())
    return limits


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"max_norm": None}, {"max_norm": None, "mode": "mean"}, {"max_norm": None, "mode": "percentile"},
        {"z_max": 1.5, "alpha": 0.9, "warmup_steps": 10, "max_norm": 0.8, "factor": 0.9},
    ],
)  # fmt: skip
def test_is_the_authors_algorithm(settings):
    norms = stream(500)
    found, expected = limits_of(ZClipRule(**settings), norms), reference(norms, **settings)
    assert found == pytest.approx(expected, rel=1e-9)
    assert sum(limit < norm for limit, norm in zip(found, norms, strict=True)) > 5


@pytest.mark.parametrize("bad", [math.inf, math.nan, -math.inf])
@pytest.mark.parametrize("at", [3, 24, 25, 100])
def test_a_norm_that_is_not_finite_changes_nothing(bad, at):
    norms, rule = stream(200), ZClipRule(max_norm=None)
    with_it = limits_of(rule, [*norms[:at], bad, *norms[at:]])
    del with_it[at]
    assert with_it == limits_of(rule, norms)


def test_the_state_is_all_there_is():
    norms, rule = stream(100), ZClipRule()
    state = rule.start()
    for norm in norms[:50]:
        state, _ = rule(state, torch.tensor(norm))
    again = state.clone()
    for norm in norms[50:]:
        state, one = rule(state, torch.tensor(norm))
        again, other = rule(again, torch.tensor(norm))
        assert torch.equal(one, other)


def test_works_on_meta_so_it_reads_nothing():
    rule = ZClipRule()
    rule(rule.start("meta"), torch.empty((), device="meta"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"z_max": 0}, "z_max must be a finite number > 0, got 0"),
        ({"z_max": math.nan}, "z_max must be a finite number > 0, got nan"),
        ({"alpha": 1.0}, r"alpha must be in \(0, 1\), got 1.0"),
        ({"warmup_steps": 1}, "warmup_steps must be a whole number of updates >= 2, got 1"),
        ({"warmup_steps": 2.5}, "warmup_steps must be a whole number"),
        ({"max_norm": -1}, "max_norm must be a finite number > 0, got -1"),
        ({"mode": "zscore"}, r"mode must be one of \['adaptive', 'mean', 'percentile'\], got 'zscore'"),
        ({"factor": 1.5}, r"factor must be in \(0, 1\), got 1.5"),
    ],
)
def test_refuses_what_it_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        ZClipRule(**wrong)
