import pytest

from lightning_llmopt.planning import Layout, memory, plan


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"model": "llama-2-7b", "memory": "60 GB", "micro_batch": 4}, "checkpointing 'selective': 41"),
        ({"model": "llama-2-7b", "memory": "60 GB", "strategy": "ddp", "gpus": 4}, "layout ZeRO-1 instead of DDP: 5"),
        (
            {"model": "llama-2-7b", "gpus": 1, "memory": "115 GB", "sequence": 64, "precision": "fp32"},
            "optimizer 'adamw_f",
        ),
        (
            {"model": "gpt2-xl", "gpus": 1, "memory": "26 GB", "checkpointing": "every_block"},
            "optimizer 'adamw_8bit': 1",
        ),
    ],
)
def test_the_smallest_change_that_fits_is_named(settings, advice):
    found = plan(**settings)
    assert not found.fits
    assert f"Smallest change on these devices: {advice}" in found.advice


def test_more_devices_are_named_apart():
    advice = plan("70B").advice
    assert "Smallest change with more devices: checkpointing 'selective', and 32 devices (FSDP2): 6" in advice


def test_what_fits_nowhere_is_said():
    advice = plan("70B", memory="1 MB").advice
    assert "on these devices: none that fits." in advice
    assert "with more devices: none that fits." in advice


def test_the_advised_change_really_fits():
    found = plan("llama-2-7b", memory="60 GB", micro_batch=4)
    assert memory(found.job, found.wanted, checkpointing="selective").peak <= found.available < found.wanted_memory.peak


def test_the_layout_by_topology_is_tp_inside_a_node_then_pp():
    found = plan("175B", gpus=1024, accumulate=32, checkpointing="every_block")
    assert found.cluster == Layout("zero1", data=64, tensor=8, pipeline=2)
    assert "By topology: TP 8 inside a node, PP 2 across, ZeRO-1 over 64 outside" in str(found)
    assert found.memory(Layout("zero1", data=32, tensor=8, pipeline=4)).peak < found.available  # the source text's
    assert plan("175B", gpus=1024, gpus_per_node=4, accumulate=32, checkpointing="every_block").cluster.tensor <= 4


def test_a_senseless_micro_batch_is_answered_at_once():
    assert not plan("gpt2", memory="80 GB", micro_batch=10**30).fits


def test_an_odd_micro_batch_is_made_smaller_too():
    found = plan(
        "llama-2-7b",
        gpus=1,
        memory="140 GB",
        micro_batch=3,
        checkpointing="every_block",
        sequence=16384,
        optimizer="adamw_fused",
    )
    assert not found.fits
    assert "Smallest change on these devices: micro-batch 1 with accumulate 3: " in found.advice


def test_offloading_says_what_the_host_has_to_hold():
    found = plan("70B", gpus=8)
    layout = Layout("fsdp2_offload", data=8)
    host = found.memory(layout).host.total
    assert f"layout FSDP2 host: 68.8 GB, and {host / 1e9:.0f} GB a device in host memory." in found.advice
    wanted = plan("70B", gpus=8, strategy="fsdp2_offload")
    assert wanted.fits
    assert f"On the host: {host / 1e9:.0f} GB for each device, {8 * host / 1e9:,.0f} GB in a node." in wanted.notes


def test_hybrid_sharding_is_left_for_fsdp2_over_all_devices():
    found = plan("llama-2-13b", gpus=64, strategy="hybrid", memory="30 GB", checkpointing="every_block")
    assert not found.fits
    assert "Smallest change on these devices: layout FSDP2 instead of hybrid: " in found.advice


def test_zero_3_is_never_advised_what_it_does_not_take():
    found = plan("llama-2-7b", memory="26 GB", strategy="zero3", optimizer="adamw_fused")
    assert "Smallest change on these devices: checkpointing 'attention': 24.8 GB." in found.advice
