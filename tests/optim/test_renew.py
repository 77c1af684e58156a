from functools import partial

import pytest
import torch
from torch import nn

from lightning_llmopt.optim import SplitOptimizer, check_settings, own, renewed
from lightning_llmopt.optim.renew import allowed_settings


def adamw(**settings):
    return own({"class_path": "torch.optim.AdamW", "init_args": settings})


def parameter():
    return nn.Parameter(torch.ones(2, 2))


class NoRate(torch.optim.Optimizer):
    """Takes no rate, as some do that find their own."""

    def __init__(self, params, power=1.0):
        super().__init__(params, {"power": power})


class Anything(torch.optim.SGD):
    def __init__(self, params, **settings):
        super().__init__(params, lr=settings["lr"])


class Secret(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, device_only=True):
        raise RuntimeError("no GPU here")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bettas": (0.9, 0.95)}, r"AdamW takes no 'bettas'; did you mean 'betas'\? It takes amsgrad, betas, "),
        ({"zzz": 1}, r"AdamW takes no 'zzz'\. It takes amsgrad, "),
        ({"params": 1}, r"AdamW takes no 'params'"),
        ({"lr": -1.0}, r"AdamW\(lr=-1.0\) is refused: Invalid learning rate: -1.0"),
        ({"lr": "fast"}, r"AdamW\(lr='fast'\) is refused"),
    ],
)
def test_a_setting_that_is_none_is_refused_with_those_that_are(settings, said):
    with pytest.raises(ValueError, match=said):
        check_settings(own({"class_path": "torch.optim.AdamW"}).__class__(torch.optim.AdamW, tuple(settings.items())))


def test_what_wants_a_device_or_any_argument_is_left_for_fit_start():
    check_settings(own(Secret))
    check_settings(own(Anything))
    assert allowed_settings(own(Anything)) is None
    assert allowed_settings(own(partial(torch.optim.SGD, momentum=0.5)))[-1] == "weight_decay"
    assert allowed_settings(own(NoRate)) == ["power"]


def test_groups_keep_parameters_names_ratios_of_rates_and_exemption_from_decay():
    first, second, third = parameter(), parameter(), parameter()
    before = torch.optim.SGD([
        {"params": [first], "lr": 0.2, "weight_decay": 0.5}, {"params": [second], "lr": 0.1, "name": "slow"},
        {"params": [third], "lr": 0.2, "momentum": 0.9},
    ])  # fmt: skip
    after = renewed(before, adamw(lr=1e-3, weight_decay=0.1))
    assert [[id(one) for one in group["params"]] for group in after.param_groups] == [
        [id(first)], [id(second)], [id(third)]
    ]  # fmt: skip
    assert [group["lr"] for group in after.param_groups] == [1e-3, 5e-4, 1e-3]
    assert [group["weight_decay"] for group in after.param_groups] == [0.1, 0.0, 0.0]
    assert [group.get("name") for group in after.param_groups] == [None, "slow", None]
    assert before.param_groups[1]["lr"] == 0.1


def test_without_a_rate_groups_keep_theirs_and_without_any_decay_all_get_the_new():
    before = torch.optim.SGD([{"params": [parameter()], "lr": 0.2}, {"params": [parameter()], "lr": 0.1}])
    after = renewed(before, adamw(weight_decay=0.1))
    assert [(group["lr"], group["weight_decay"]) for group in after.param_groups] == [(0.2, 0.1), (0.1, 0.1)]


def test_an_optimizer_without_rates_is_not_given_any():
    after = renewed(torch.optim.SGD([parameter()], lr=0.2), own(NoRate))
    assert after.param_groups[0]["power"] == 1.0


def test_a_first_group_at_rate_0_has_no_ratios():
    before = torch.optim.SGD([{"params": [parameter()], "lr": 0.0}, {"params": [parameter()], "lr": 0.1}])
    with pytest.raises(ValueError, match="the first group's rate is 0"):
        renewed(before, adamw(lr=1e-3))


def test_others_train_what_does_not_fit():
    matrix, vector = parameter(), nn.Parameter(torch.ones(2))
    before = torch.optim.SGD([{"params": [matrix, vector], "name": "both"}], lr=0.2)
    after = renewed(before, own("torch.optim.Muon"), others=adamw(lr=1e-3), fits=lambda one: one.ndim == 2)
    assert isinstance(after, SplitOptimizer)
    assert [type(part).__name__ for part in after.parts] == ["Muon", "AdamW"]
    assert [(group["name"], group["lr"]) for group in after.param_groups] == [("both", 0.2), ("both", 1e-3)]
    alone = renewed(torch.optim.SGD([vector]), own("torch.optim.Muon"), others=adamw(), fits=lambda one: one.ndim == 2)
    assert type(alone) is torch.optim.AdamW


def test_parameters_that_it_does_not_take_are_refused():
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        renewed(torch.optim.SGD([nn.Parameter(torch.ones(2))]), own("torch.optim.Muon"))
