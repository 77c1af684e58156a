from dataclasses import replace
from fractions import Fraction

import pytest

from lightning_llmopt.planning import NAMED, Layout, bubble
from lightning_llmopt.planning.layouts import check_tensor, layouts, pipeline_degrees, tensor_degrees


@pytest.mark.parametrize(("stages", "micro"), [(1, 1), (2, 1), (4, 12), (8, 32), (16, 1)])
def test_the_bubble_is_the_idle_part_of_a_schedule_played_slot_by_slot(stages, micro):
    busy = {(stage, slot) for stage in range(stages) for slot in range(stage, stage + micro)}
    slots = max(slot for _, slot in busy) + 1
    assert bubble(stages, micro_batches=micro) == pytest.approx(float(1 - Fraction(len(busy), stages * slots)))


def test_every_layout_takes_all_devices_and_no_node_is_crossed_by_tensor_parallelism():
    for gpus, node in ((2, 8), (8, 8), (64, 4), (1024, 8)):
        found = layouts(NAMED["llama-2-70b"].network(), gpus=gpus, gpus_per_node=node)
        assert [layout.gpus for layout in found] == [1] + [gpus] * (len(found) - 1)
        assert max(layout.tensor for layout in found) == min(gpus, node)
        assert len(set(found)) == len(found)


def test_tensor_parallelism_divides_heads_and_key_value_heads():
    assert tensor_degrees(NAMED["llama-2-70b"].network(), limit=64) == [1, 2, 4, 8]
    assert tensor_degrees(NAMED["gpt2-xl"].network(), limit=8) == [1]  # 25 heads
    assert pipeline_degrees(NAMED["gpt2"].network(), limit=64) == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"strategy": "zero9"}, r"strategy must be one of .*, got 'zero9'\."),
        ({"strategy": "ddp", "data": 0}, r"Layout\.data must be a whole number >= 1, got 0\."),
        ({"strategy": "ddp", "tensor": 1.0}, r"Layout\.tensor must be a whole number >= 1, got 1\.0\."),
        ({"strategy": "hybrid", "data": 4, "copies": 3}, r"Layout\.copies must divide data \(4\), got 3\."),
        ({"strategy": "fsdp2", "data": 4, "copies": 2}, r"Layout\.copies must be 1 unless the strategy is 'hybrid'"),
        ({"strategy": "single", "data": 2}, r"Layout\.data must be 1 for 'single', got 2; 'ddp' copies"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(arguments, error):
    with pytest.raises(ValueError, match=error):
        Layout(**arguments)


@pytest.mark.parametrize(("stages", "micro", "name"), [(0, 1, "pipeline"), (1, 0, "micro_batches")])
def test_a_bubble_needs_stages_and_micro_batches(stages, micro, name):
    with pytest.raises(ValueError, match=rf"{name} must be a whole number >= 1, got 0\."):
        bubble(stages, micro_batches=micro)


def test_guessed_heads_refuse_nothing():
    network = NAMED["gpt2"].network()
    with pytest.raises(
        ValueError, match=r"tensor must divide the attention heads \(12\), got 8: use one of 1, 2, 3, 4, 6, 12"
    ):
        check_tensor(network, 8)
    check_tensor(replace(network, widths=replace(network.widths, guessed_heads=True)), 8)
