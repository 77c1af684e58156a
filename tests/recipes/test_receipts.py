import dataclasses

import pytest

from lightning_llmopt.recipes import Receipt


def test_it_is_frozen_and_knows_its_unit():
    receipt = Receipt("batch", 500_000, "somewhere, 2020", "source")
    assert (receipt.unit, receipt.verified) == ("tokens", True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        receipt.value = 1
    assert not Receipt("batch", 500_000, "somewhere, 2020", "quoted").verified


def test_no_unit_stands_twice_and_none_is_no_word():
    assert Receipt("total", "2T tokens", "somewhere, 2020", "source").unit == ""
    assert Receipt("peak_lr", 3e-4, "somewhere, 2020", "source").unit == ""


@pytest.mark.parametrize(
    ("checked", "doubt", "said"),
    [
        ("yes", "", "checked must be one of"),
        ("unverified", "", "what is unverified needs a doubt"),
        ("source", "hm", "nothing else has one"),
    ],
)
def test_a_doubt_and_what_is_unverified_go_together(checked, doubt, said):
    with pytest.raises(ValueError, match=f"batch: .*{said}"):
        Receipt("batch", 1, "somewhere", checked, doubt)
