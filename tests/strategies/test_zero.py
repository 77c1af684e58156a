"""ZeRO fills in its configuration and says what it cannot do; on the double that lifts Lightning's guard for CUDA."""

import json
import warnings

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from lightning_llmopt.strategies import ZeRO

from curves import Encoder, OnCPUZero, batches
from doubles import deepspeed_is_here
from fitting import Regression, loader, trainer
from ranks import on_ranks

pytestmark = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)


def fit(tmp_path, module, data, strategy, **settings):
    run = trainer(tmp_path, strategy=strategy, **{"devices": 1, "max_steps": 1, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(module, data)
    return run


def refused(tmp_path, strategy, module=None, **settings):
    def attempt(rank):
        with pytest.raises(MisconfigurationException) as caught:
            fit(tmp_path, module or Encoder(), batches(), strategy(), **settings)
        return str(caught.value)

    return on_ranks(1, attempt)[0]


def test_the_configuration_is_shown_complete(tmp_path):
    def run(rank):
        strategy = OnCPUZero(stage=2, process_group_backend="gloo")
        before = strategy.config_json()
        fit(tmp_path, Regression(torch.optim.AdamW), loader(batch_size=4), strategy, devices=2,
            accumulate_grad_batches=3, gradient_clip_val=0.7)  # fmt: skip
        return before, strategy.config_json()

    for before, after in on_ranks(2, run):
        config = json.loads(after)
        assert "auto" in before
        assert "auto" not in after
        assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (4, 3)
        assert (config["train_batch_size"], config["gradient_clipping"]) == (24, 0.7)


class Scalar(Encoder):
    """With a parameter that has no dimension."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))


def test_parameters_without_a_dimension_are_refused_with_both_ways_out(tmp_path):
    assert refused(tmp_path, lambda: OnCPUZero(process_group_backend="gloo"), Scalar()) == (
        "OnCPUZero takes parameters of one dimension or more, and scale of Scalar have none: give them the shape (1,), "
        "or use preset('ddp')."
    )


@pytest.mark.parametrize("stage", [2, 3])
def test_weights_that_do_not_lie_row_by_row_train(tmp_path, stage):
    def run(rank):
        module = Encoder()
        module.head.weight = nn.Parameter(torch.randn(32, 48).t())
        module.image = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        return fit(tmp_path, module, batches(), OnCPUZero(stage=stage, process_group_backend="gloo")).global_step

    assert on_ranks(1, run) == [1]


def test_a_loader_that_does_not_say_its_batch_counts_as_one(tmp_path):
    def run(rank):
        strategy = OnCPUZero(stage=1, process_group_backend="gloo")
        fit(tmp_path, Encoder(), DataLoader(list(batches().dataset), batch_size=None), strategy)
        return strategy.config["train_micro_batch_size_per_gpu"]

    assert on_ranks(1, run) == [1]


def test_clipping_by_value_is_refused_with_both_ways_out(tmp_path):
    sentence = refused(
        tmp_path,
        lambda: OnCPUZero(process_group_backend="gloo"),
        gradient_clip_val=1.0,
        gradient_clip_algorithm="value",
    )
    assert sentence == (
        "ZeRO clips by norm only, and Trainer(gradient_clip_algorithm='value') was set: use "
        "gradient_clip_algorithm='norm', or drop gradient_clip_val for callbacks.GradientValueClip(...)."
    )


def test_offload_without_the_cpp_optimizer_is_refused_with_both_ways_out(tmp_path):
    sentence = refused(tmp_path, lambda: OnCPUZero(offload_optimizer=True, process_group_backend="gloo"))
    assert sentence == (
        "offload_optimizer steps on the host, and AdamW is not made for that: return "
        "deepspeed.ops.adam.DeepSpeedCPUAdam from configure_optimizers, or pass torch_optimizer=True and accept an "
        "update that is several times slower."
    )


def test_another_accumulation_window_in_the_configuration_is_refused_with_both_ways_out(tmp_path):
    config = {"gradient_accumulation_steps": 4}
    sentence = refused(tmp_path, lambda: OnCPUZero(config=config, process_group_backend="gloo"))
    assert sentence == (
        "config has gradient_accumulation_steps=4, and the Trainer accumulate_grad_batches=1: set the Trainer's, which "
        "schedules count by, or drop the entry."
    )


def test_offloaded_parameters_need_stage_3():
    with pytest.raises(ValueError, match="offload_parameters needs stage 3, which alone shards them, got stage 2: use"):
        ZeRO(stage=2, offload_parameters=True)


def test_own_entries_win(tmp_path):
    strategy = ZeRO(config={"zero_optimization": {"reduce_bucket_size": 5}, "gradient_clipping": 0.1})
    assert strategy.wanted["zero_optimization"]["reduce_bucket_size"] == 5
    assert strategy.wanted["zero_optimization"]["stage"] == 2
    assert strategy.wanted["gradient_clipping"] == 0.1
