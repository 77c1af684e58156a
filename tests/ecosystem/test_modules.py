"""Models that nobody here wrote train with our callbacks, each by its own code; one table of what came out."""

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_llmopt.structure import find_blocks

from shipped import BAD, BOUND, DECAY, RECIPE, ours, train
from table import note

from cases import CASES

every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.xfail(strict=True, reason=case.fails)] if case.fails else [])
        for case in CASES
    ],
    ids=str,
)
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs: deprecations, missing kernels, hints


def expected_scale(case, look, name):
    if not case.blocks:
        return 1.0
    return DECAY ** (case.blocks + 1 - find_blocks(look.module).depth_of(name))


@every_case
def test_rates_norms_and_groups_are_what_they_should_be(case, tmp_path):
    plain, _ = train(case, tmp_path / "plain")
    look, logger = train(case, tmp_path / "ours", *ours(case))
    if case.blocks:
        assert len(find_blocks(look.module).blocks) == case.blocks
    scales = {name: expected_scale(case, look, name) for update in look.updates for name in update.rates}
    several = len(plain.optimizers) > 1
    assert look.optimizers == plain.optimizers
    for index, kind in enumerate(plain.optimizers):
        before, after = plain.of(index), look.of(index)
        assert len(after) == len(before) >= 4
        schedule = RECIPE.resolve(total_steps=len(after))
        base = before[0].bases
        for step, update in enumerate(after):
            assert update.rates == pytest.approx({name: base[name] * scales[name] * schedule(step) for name in base})
            assert update.stepped == pytest.approx(clipped_norm(update.raw), rel=1e-5)
            assert update.stepped <= BOUND * (1 + 1e-6)
            assert update.moved
        assert max(update.raw for update in after) > BOUND, "nothing was clipped"
        decays = {name: 0.0 if name in look.spared else decay for name, decay in before[0].decays.items()}
        assert after[0].decays == decays
        tag = f"/{list_of_names(plain.optimizers)[index]}" if several else ""
        raw, clipped = logger.points[f"grad_norm/total{tag}"], logger.points[f"grad_norm/clipped{tag}"]
        assert list(raw.values()) == pytest.approx([update.raw for update in after], rel=1e-5)
        assert list(clipped.values()) == pytest.approx([update.stepped for update in after], rel=1e-5)
    note(case, plain, look, min(scales.values()))


def clipped_norm(raw):
    """By torch's formula, with the small number that it adds."""
    return raw * min(1.0, BOUND / (raw + 1e-6))


def list_of_names(kinds):
    """Lightning's own way to tell optimizers of one class apart: Adam, Adam-1."""
    return [kind if kinds[:i].count(kind) == 0 else f"{kind}-{kinds[:i].count(kind)}" for i, kind in enumerate(kinds)]


@every_case
def test_an_update_with_a_nan_is_left_out_and_the_schedule_waits(case, tmp_path):
    look, _ = train(case, tmp_path, *ours(case), bad=BAD)
    for index in range(len(look.optimizers)):
        updates = look.of(index)
        before, bad, after = updates[BAD - 1 : BAD + 2]
        assert before.moved
        assert not bad.moved
        assert bad.states == before.states
        assert after.moved
        assert after.rates == bad.rates != before.rates


@pytest.mark.parametrize("case", [case for case in CASES if case.scheduler and not case.fails], ids=str)
def test_a_scheduler_of_its_own_is_refused_with_the_way_out(case, tmp_path):
    expected = rf"Two writers of the learning rate: LRSchedule and {case.scheduler}, .*replace_schedulers=True"
    with pytest.raises(MisconfigurationException, match=expected):
        train(case, tmp_path, *ours(case, replace=False))
