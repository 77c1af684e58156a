"""AdaGC against its formulas, written out in plain Python."""

import math
import random

import pytest
import torch

from lightning_llmopt.gradients import AdaGCRule


def reference(stream, *, relative=1.05, beta=0.98, warmup_steps=100, max_norm=1.0):
    """Factors for a stream of lists of norms."""
    gamma, factors = [math.inf] * len(stream[0]), []
    for update, norms in enumerate(stream):
        total = math.sqrt(sum(norm**2 for norm in norms))
        row = []
        for index, norm in enumerate(norms):
            if update < warmup_steps:
                factor = min(1.0, max_norm / (total + 1e-6))
                gamma[index] = min(gamma[index], norm * factor)
            else:
                factor = min(1.0, relative * gamma[index] / norm)
                gamma[index] = beta * gamma[index] + (1 - beta) * norm * factor
            row.append(factor)
        factors.append(row)
    return factors


def stream(updates, tensors=4, seed=0):
    draw = random.Random(seed)
    return [[math.exp(draw.gauss(-1, 0.5)) for _ in range(tensors)] for _ in range(updates)]


def factors_of(rule, norms):
    state, factors = rule.start(len(norms[0])).double(), []
    for row in norms:
        state, factor = rule(state, torch.tensor(row, dtype=torch.float64))
        factors.append(factor.tolist())
    return factors, state


@pytest.mark.parametrize("settings", [{}, {"relative": 1.5, "beta": 0.9, "warmup_steps": 7, "max_norm": 0.3}])
def test_is_the_formula(settings):
    norms = stream(300)
    found, _ = factors_of(AdaGCRule(**settings), norms)
    for row, expected in zip(found, reference(norms, **settings), strict=True):
        assert row == pytest.approx(expected, rel=1e-9)


def test_gamma_grows_by_no_more_than_a_thousandth_an_update():
    rule = AdaGCRule(warmup_steps=1)
    _, state = factors_of(rule, [[1.0, 0.1]] + [[1e6, 1e6]] * 100)
    start = 1 / math.sqrt(1.01)
    assert state[1:].tolist() == pytest.approx([start * 1.001**100, 0.1 * start * 1.001**100], rel=1e-4)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("at", [3, 50])
def test_a_norm_that_is_not_finite_changes_no_gamma_of_its_own(bad, at):
    rule, norms = AdaGCRule(warmup_steps=10), stream(100)
    spoiled = [list(row) for row in norms]
    spoiled[at][2] = bad
    with_it, state = factors_of(rule, spoiled)
    assert with_it[at][2] == 1.0
    assert torch.isfinite(state).all()


def test_a_tensor_without_a_gradient_keeps_its_gamma_and_starts_when_it_has_one():
    rule = AdaGCRule(warmup_steps=2)
    norms = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.5], [1.0, 5.0], [0.0, 5.0]]
    factors, state = factors_of(rule, norms)
    assert factors[3][1] == pytest.approx(1 / math.sqrt(1.25), rel=1e-5)  # as in the warmup: nothing is known of it
    assert factors[4][1] < 0.11
    assert all(math.isfinite(value) for value in state.tolist())


def test_works_on_meta_so_it_reads_nothing():
    rule = AdaGCRule()
    rule(rule.start(3, "meta"), torch.empty(3, device="meta"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"relative": 1.0}, "relative must be a finite number > 1, got 1.0"),
        ({"beta": 1}, r"beta must be in \(0, 1\), got 1"),
        ({"max_norm": math.inf}, "max_norm must be a finite number > 0, got inf"),
        ({"warmup_steps": 0}, "warmup_steps must be a whole number of updates >= 1, got 0"),
    ],
)
def test_refuses_what_it_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        AdaGCRule(**wrong)
