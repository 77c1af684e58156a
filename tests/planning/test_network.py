import pytest

from lightning_llmopt.planning import NAMED


@pytest.mark.parametrize("stages", [1, 2, 5, 7, 12])
def test_stages_hold_every_block_once_and_differ_by_one_at_most(stages):
    network = NAMED["gpt2"].network()
    found = network.stages(stages)
    lengths = [len(stage) for stage in found]
    assert sum(found, ()) == network.blocks
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("stages", [0, 13])
def test_stages_without_blocks_are_refused(stages):
    rule = rf"pipeline must be 1 to the number of blocks \(12\), got {stages}: use 12 stages or fewer, or"
    with pytest.raises(ValueError, match=rule):
        NAMED["gpt2"].network().stages(stages)
