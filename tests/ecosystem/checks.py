"""Three checks that every model has to pass, by what its optimizers really did."""

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_llmopt.structure import find_blocks

from shipped import BAD, BOUND, DECAY, RECIPE, ours, train
from table import note


def trains_as_told(case, folder):
    """Rates follow schedule and depth, norms are the true ones, what is clipped is, groups partition the parameters."""
    plain, _ = train(case, folder / "plain")
    look, logger = train(case, folder / "ours", *ours(case))
    if case.blocks:
        assert len(find_blocks(look.module).blocks) == case.blocks
    scales = {name: scale_of(case, look, name) for update in look.updates for name in update.rates}
    assert look.optimizers == plain.optimizers
    for index, tag in enumerate(tags_of(plain.optimizers)):
        before, after = plain.of(index), look.of(index)
        assert len(after) == len(before) >= 4
        schedule = RECIPE.resolve(total_steps=len(after))
        for step, update in enumerate(after):
            base = before[step].bases  # of the layers that are trained by then
            assert update.rates == pytest.approx({name: base[name] * scales[name] * schedule(step) for name in base})
            assert update.stepped == pytest.approx(clipped_norm(update.raw), rel=1e-5)
            assert update.stepped <= BOUND * (1 + 1e-6)
            assert update.moved
        assert max(update.raw for update in after) > BOUND, "nothing was clipped"
        decays = {name: 0.0 if name in look.spared else decay for name, decay in before[-1].decays.items()}
        assert after[-1].decays == decays
        raw, clipped = logger.points[f"grad_norm/total{tag}"], logger.points[f"grad_norm/clipped{tag}"]
        assert list(raw.values()) == pytest.approx([update.raw for update in after], rel=1e-5)
        assert list(clipped.values()) == pytest.approx([update.stepped for update in after], rel=1e-5)
    note(case, plain, look, min(scales.values()))


def leaves_out_a_bad_update(case, folder):
    """Parameters and optimizer state stay as they were, and the schedule waits."""
    look, _ = train(case, folder, *ours(case), bad=BAD)
    for index in range(len(look.optimizers)):
        before, bad, after = look.of(index)[BAD - 1 : BAD + 2]
        assert before.moved
        assert not bad.moved
        assert bad.states == before.states
        assert after.moved
        assert after.rates == bad.rates != before.rates


def refuses_a_second_writer(case, folder):
    """The scheduler that the module returns is named, and so is the way out that the other checks took."""
    expected = rf"Two writers of the learning rate: LRSchedule and {case.scheduler}, .*replace_schedulers=True"
    with pytest.raises(MisconfigurationException, match=expected):
        train(case, folder, *ours(case, replace=False))


def scale_of(case, look, name):
    """What layer-wise decay makes of a parameter's rate, by the formula of the docs."""
    return DECAY ** (case.blocks + 1 - find_blocks(look.module).depth_of(name)) if case.blocks else 1.0


def clipped_norm(raw):
    """By torch's formula, with the small number that it adds."""
    return raw * min(1.0, BOUND / (raw + 1e-6))


def tags_of(kinds):
    """What metrics of several optimizers end in: Lightning tells those of one class apart as Adam, Adam-1."""
    if len(kinds) == 1:
        return [""]
    seen = [kinds[:position].count(kind) for position, kind in enumerate(kinds)]
    return [f"/{kind}-{number}" if number else f"/{kind}" for kind, number in zip(kinds, seen, strict=True)]
