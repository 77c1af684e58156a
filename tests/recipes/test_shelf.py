"""What the files hold, against the source texts and papers; and that one truth stands in one place."""

import json
import pickle
import re
import subprocess
import sys
from importlib.resources import files

import pytest

from lightning_llmopt import recipes as room
from lightning_llmopt.planning import published_rates
from lightning_llmopt.recipes import recipe, recipes
from lightning_llmopt.schedules import SHAPES

every_recipe = pytest.mark.parametrize("name", recipes().names)
ASKED_FOR = [
    "llama2-70b", "llama2-7b", "gpt3-175b", "gpt3-13b", "gpt3-6.7b", "gpt3-2.7b", "gpt3-1.3b", "gpt3-760m", "gpt3-350m",
    "gpt3-125m", "chinchilla-70b", "mistral-7b", "minicpm", "deepseek-llm", "deepseek-v3", "kimi-k2", "olmo",
    "finetune", "continued-pretraining", "small-gpu",
]  # fmt: skip


def test_all_that_were_asked_for_are_there_once():
    names = recipes().names
    assert set(ASKED_FOR) <= set(names)
    assert len(set(names)) == len(names) == len(recipes())


# "Training Recipes from Real Models" of the tutorial, by its columns
TUTORIAL = {
    "gpt3-175b": (0.6e-4, "375M tokens", 3_200_000, "300B tokens"),
    "llama2-70b": (1.5e-4, "2000 steps", 4_000_000, "2T tokens"),
    "chinchilla-70b": (1.0e-4, "1500 steps", 3_000_000, "1.4T tokens"),  # its 1.5M is where the batch begins
    "mistral-7b": (3.0e-4, "1000 steps", 4_000_000, "8T tokens"),
}


@pytest.mark.parametrize("name", TUTORIAL)
def test_the_tutorials_table(name):
    found = recipe(name)
    rate, warmup, batch, total = TUTORIAL[name]
    told = dict(found["schedule.warmup"].value)["length"] if name == "gpt3-175b" else found["schedule.warmup"].value
    assert (found["peak_lr"].value, told, found["batch"].value, found["total"].value) == (rate, warmup, batch, total)
    assert found["betas"].value == (0.9, 0.95)
    assert (found["weight_decay"].value, found["max_norm"].value) == (0.1, 1.0)
    assert (
        found.schedule().resolve(total_steps=10**12, unit="tokens" if name == "gpt3-175b" else "updates")(10**12) == 0.1
    )


GUIDE = {  # its quick reference, row by row
    "pretraining": (3e-4, (0.9, 0.95), 0.1, "torch.optim.AdamW"),
    "finetune": (1e-5, (0.9, 0.999), 0.01, "torch.optim.AdamW"),
    "small-gpu": (3e-4, (0.9, 0.95), 0.1, "torchao.optim.AdamW8bit"),
}


@pytest.mark.parametrize("name", GUIDE)
def test_the_guides_quick_reference(name):
    found = recipe(name)
    assert tuple(found[key].value for key in ("peak_lr", "betas", "weight_decay", "optimizer")) == GUIDE[name]


def rates(name, at, *, unit, total):
    """Rates at these points of a recipe."""
    found = recipe(name)
    schedule = found.schedule().resolve(total_steps=total, unit=unit)
    return [found["peak_lr"].value * schedule(point) for point in at]


def test_gpt3_at_every_boundary():
    at = [187_500_000 - 1, 375_000_000 - 1, (375_000_000 + 260 * 10**9) // 2, 260 * 10**9, 300 * 10**9 - 1]
    assert rates("gpt3-175b", at, unit="tokens", total=300 * 10**9) == pytest.approx([
        0.5 * 6e-5, 6e-5, 0.55 * 6e-5, 6e-6, 6e-6
    ])  # fmt: skip


def test_deepseek_llm_drops_at_80_and_90_percent():
    at = [0, 1_999, 79_999, 80_000, 89_999, 90_000]
    assert rates("deepseek-llm", at, unit="updates", total=100_000) == pytest.approx([
        3.2e-4 / 2_000, 3.2e-4, 3.2e-4, 3.2e-4 * 0.316, 3.2e-4 * 0.316, 3.2e-5
    ])  # fmt: skip
    assert dict(recipe("deepseek-llm")["schedule.milestones"].value)["80%"] == pytest.approx(10**-0.5, abs=5e-4)


def test_minicpm_halves_every_5000_updates_at_the_end():
    at = [99_999, 180_000, 185_000, 195_000]
    assert rates("minicpm", at, unit="updates", total=200_000) == pytest.approx([0.01, 0.01, 0.005, 0.00125])


T, B = 10**12, 10**9


@pytest.mark.parametrize(
    ("name", "total", "expected"),
    [
        ("deepseek-v3", 14_800 * B, {5 * T: 2.2e-4, 10 * T: 2.2e-4, 12_150 * B: (2.2e-4 + 2.2e-5) / 2,
                                     14_300 * B: 2.2e-5, 14_632 * B: 2.2e-5, 14_633 * B: 7.3e-6, 14_799 * B: 7.3e-6}),
        ("kimi-k2", 15_500 * B, {5 * T: 2e-4, 10 * T: 2e-4, 12_750 * B: 1.1e-4, 15_500 * B - 1: 2e-5}),
    ],
)  # fmt: skip
def test_phases_in_tokens_at_every_boundary(name, total, expected):
    """With their warmups, which are in updates, as the tokens that those come to."""
    found = recipe(name).rescaled(batch=recipe(name)["batch"].value)  # parts of the run, and nothing else
    schedule = found.schedule().resolve(total_steps=total, unit="tokens")
    got = {at: found["peak_lr"].value * schedule(at) for at in expected}
    assert got == pytest.approx(expected, rel=1e-6)
    assert recipe(name)["total"].value == f"{total / T:g}T tokens"


def test_phases_of_deepseek_v3_add_up():
    phases = [dict(recipe("deepseek-v3")[f"schedule.{name}"].value) for name in ("stable", "decay", "low")]
    assert [phase.get("until", phase.get("length")) for phase in phases] == ["10T tokens", "4.3T tokens", "333B tokens"]
    assert 10 * T + 4_300 * B + 333 * B + 167 * B == 14_800 * B


def test_olmos_config():
    found = recipe("olmo")
    assert (found["batch"].value, found["schedule.warmup"].value) == (2048 * 2048, "5000 steps")
    assert found["peak_lr"].verified
    assert found["eps"].checked == "unverified"


@every_recipe
def test_every_value_has_a_source_with_a_year_and_a_link_or_is_advice(name):
    texts = ("a tutorial, no year or address known", "a guide, no author, year or address known", "(a tutorial)",
             "README of deepseek-ai/DeepSeek-LLM")  # fmt: skip
    for receipt in recipe(name):
        linked = re.search(r"\b20\d\d\b", receipt.source) and "https://" in receipt.source
        assert linked or any(text in receipt.source for text in texts), receipt


@every_recipe
def test_every_recipe_can_be_built_printed_and_kept(name):
    found = recipe(name)
    spec = found.schedule()
    assert found["schedule"].value in ("phases", spec.recipe)
    assert all(phase.shape.partition("(")[0] in SHAPES for phase in spec.phases)
    assert {"optimizer", "peak_lr", "schedule", "max_norm", "decays", "weight_decay"} <= {one.name for one in found}
    assert pickle.loads(pickle.dumps(found)) == found
    assert hash(found) == hash(recipe(name))
    assert str(found).startswith(f"{name}: ")


def test_rates_sizes_and_batches_are_those_of_published_rates_and_stand_in_no_file():
    by_model = {row.model: row for row in published_rates()}
    titled = [found for found in recipes() if found.title in by_model]
    assert len(titled) == 8 + 4 + 1 + 1 + 2 + 1 + 1  # GPT-3, Llama 2, Chinchilla, Mistral, DeepSeek LLM, V3, Kimi K2
    for found in titled:
        row = by_model[found.title]
        assert [found[key].value for key in ("size", "peak_lr", "batch")] == [row.parameters, row.rate, row.batch]
        assert found["peak_lr"].source == row.source
        assert (found["peak_lr"].checked == "unverified") == ("rate" in row.unverified)
        assert (found["batch"].checked == "unverified") == ("batch" in row.unverified)
    for file in files(room).joinpath("data").iterdir():
        for own in json.loads(file.read_text())["recipes"].values():
            assert not ("published" in own and {"size", "peak_lr", "batch"} & own.get("values", {}).keys())


def test_what_references_call_unverified_is_not_called_verified():
    assert {one.name for one in recipe("mistral-7b") if one.checked == "unverified"} >= {"peak_lr", "batch", "total"}
    assert {one.name for one in recipe("chinchilla-70b").unverified} >= {
        "betas",
        "schedule.warmup",
        "max_norm",
        "total",
    }
    assert "whether the 260 billion tokens include the warmup" in recipe("gpt3-175b")["schedule.decay"].doubt
    assert not any(one.verified for one in recipe("deepseek-v3") if one.name not in ("size", "peak_lr", "batch"))


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"recipe must be one of .*llama2-7b.*got 'llama-7b'. Did you mean 'llama2-7b'\?"
    ):
        recipe("llama-7b")
    with pytest.raises(ValueError, match="recipe must be one of"):
        recipe(7)


def test_the_table_of_all_has_a_row_for_each():
    lines = str(recipes()).splitlines()
    assert lines[0].split()[:3] == ["recipe", "size", "optimizer"]
    assert [line.split()[0] for line in lines[1:]] == list(recipes().names)
    (line,) = [line for line in lines if line.startswith("gpt3-13b")]
    assert line.split()[1:6] == [
        "13B",
        "AdamW",
        "1.0e-04",
        "phases",
        "2M",
    ]


def test_the_table_of_one_says_what_is_not_verified_and_not_done():
    text = str(recipe("gpt3-175b"))
    assert re.search(r"^betas +0.9, 0.95 +\[\d\] +quoted$", text, re.MULTILINE)
    assert re.search(r"^peak_lr +6e-05 +\[\d\] +yes$", text, re.MULTILINE)
    assert re.search(r"^decays +matrices +\[\d\] +no$", text, re.MULTILINE)
    assert "? schedule.decay: whether the 260 billion tokens include the warmup is not stated" in text
    assert "not done: batch_ramp is data; nothing here plays it." in text
    assert "QK-clip" in str(recipe("kimi-k2"))


def test_a_recipe_is_read_without_torch_or_lightning():
    code = (
        "import sys; from lightning_llmopt.recipes import recipe; str(recipe('kimi-k2').rescaled(batch='1M')); "
        "sys.exit(str({'torch', 'lightning'} & sys.modules.keys() or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True)
    assert done.stderr.strip() == "0"


def test_there_is_nothing_else_in_the_room():
    with pytest.raises(AttributeError, match="has no attribute 'UseRecipes'"):
        room.UseRecipes  # noqa: B018
