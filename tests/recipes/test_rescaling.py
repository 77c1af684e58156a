import itertools
import math

import pytest

from lightning_llmopt.planning import rate_for_size
from lightning_llmopt.recipes import compute_fit, recipe


def changed(found):
    return {one.name for one in found.changes}


def test_half_the_batch_is_the_rate_over_root_2_and_the_same_part_of_the_run():
    found = recipe("llama2-70b").rescaled(batch=2_000_000)
    assert found["peak_lr"].value == pytest.approx(1.5e-4 / math.sqrt(2), rel=1e-5)
    assert found["batch"].value == 2_000_000
    assert found["schedule.warmup"].value == "0.4%"  # 2,000 updates of 4M tokens of 2T
    assert changed(found) == {"peak_lr", "batch", "schedule.warmup"}
    assert found["total"] == recipe("llama2-70b")["total"]


def test_the_rate_stays_on_request():
    found = recipe("llama2-70b").rescaled(batch=1_024, total="1M", rule="keep")
    assert found["peak_lr"] == recipe("llama2-70b")["peak_lr"]
    assert (found["batch"].value, found["schedule.warmup"].value) == (1_024, "0.4%")


def test_a_batch_that_is_far_away_is_called_so():
    assert "nobody has checked it" in recipe("llama2-70b").rescaled(batch=4_000_000 // 33)["peak_lr"].source
    assert "nobody has checked it" not in recipe("llama2-70b").rescaled(batch=4_000_000 // 31)["peak_lr"].source


def test_in_proportion_on_request():
    found = recipe("llama2-70b").rescaled(batch="1M", rule="linear")
    assert found["peak_lr"].value == pytest.approx(1.5e-4 / 4)
    assert "Goyal et al. 2017" in found["peak_lr"].source


def test_another_length_moves_lengths_and_no_rate():
    found = recipe("gpt3-175b").rescaled(total="3B tokens")
    assert dict(found["schedule.warmup"].value)["length"] == "0.125%"  # 375M of 300B
    assert float(dict(found["schedule.decay"].value)["until"].rstrip("%")) == pytest.approx(260 / 3)
    assert found["peak_lr"] == recipe("gpt3-175b")["peak_lr"]
    assert "batch_ramp" not in found
    schedule = found.schedule().resolve(total_steps=800)
    assert [schedule(at) for at in (0, 694, 799)] == pytest.approx([1.0, 0.1, 0.1], abs=1e-4)


def test_another_size_of_a_family_is_between_its_neighbours_with_the_nearest_batch():
    found = recipe("gpt3-175b").rescaled(size="1B")
    assert found["peak_lr"].value == pytest.approx(rate_for_size(10**9), rel=1e-5)
    assert found["batch"].value == 1_000_000  # that of the 1.3B
    published = recipe("gpt3-175b").rescaled(size="13B")
    assert (published["peak_lr"].value, published["batch"].value) == (1e-4, 2_000_000)
    both = recipe("gpt3-175b").rescaled(size="13B", batch="500k")
    assert both["peak_lr"].value == pytest.approx(1e-4 / 2)
    assert [one.name for one in both.changes].count("peak_lr") == 2


def test_chinchillas_tokens_are_20_a_parameter():
    assert recipe("gpt3-13b").rescaled(total="chinchilla")["total"].value == "260B tokens"
    assert recipe("gpt3-13b").rescaled(size="6.7B", total="chinchilla")["total"].value == "134B tokens"
    with pytest.raises(ValueError, match="finetune states no size"):
        recipe("finetune").rescaled(total="chinchilla")


@pytest.mark.parametrize(("name", "size"), [("deepseek-llm", 67e9), ("deepseek-llm-7b", 7e9)])
def test_the_fits_over_compute_give_back_what_was_published(name, size):
    rate, batch = compute_fit(size, 2e12)
    assert rate == pytest.approx(recipe(name)["peak_lr"].value, rel=0.03)
    assert batch == pytest.approx(recipe(name)["batch"].value, rel=0.03)


def test_deepseek_llm_follows_its_fits():
    found = recipe("deepseek-llm").rescaled(size="1B", total="20B")
    rate, batch = compute_fit(1e9, 2e10)
    assert (found["peak_lr"].value, found["batch"].value) == (
        pytest.approx(rate, rel=1e-5),
        pytest.approx(batch, rel=1e-5),
    )
    assert rate == pytest.approx(0.3118 * 1.2e20**-0.125)
    assert found["schedule.milestones"] == recipe("deepseek-llm")["schedule.milestones"]
    longer = recipe("deepseek-llm").rescaled(total="4T")
    assert longer["peak_lr"].value < recipe("deepseek-llm")["peak_lr"].value
    own = recipe("deepseek-llm").rescaled(size="1B", total="20B", batch="100k")
    assert own["peak_lr"].value == pytest.approx(rate * math.sqrt(1e5 / found["batch"].value), rel=1e-4)


def test_under_mup_the_rate_stays_and_says_so():
    found = recipe("minicpm").rescaled(size="100M")
    assert found["peak_lr"] == recipe("minicpm")["peak_lr"]
    assert next(one for one in found.changes if one.name == "peak_lr").after == "the same"


def test_every_change_is_in_the_table_with_its_reason():
    text = str(recipe("llama2-7b").rescaled(batch="1M", total="20B tokens", size="7B"))
    assert (
        "changed peak_lr: 0.0003 -> 0.00015: goes with the square root of the batch, x 0.25: Malladi et al. 2022"
        in text
    )
    assert "changed total: 2T tokens -> 20B tokens: as asked" in text
    assert "changed schedule.warmup: 2000 steps -> 0.4%: keeps its part of the published run; ours" in text
    assert "changed size" not in text


def test_the_recipe_itself_stays_as_it_was_and_rescaling_goes_on():
    before = recipe("llama2-7b")
    twice = before.rescaled(total="20B").rescaled(batch="1M")
    assert before == recipe("llama2-7b")
    assert twice["schedule.warmup"].value == "0.4%"
    assert twice["peak_lr"].value == pytest.approx(1.5e-4)
    assert len(twice.changes) == 4


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("llama2-7b", {}, "needs batch, total or size, got none"),
        ("llama2-7b", {"batch": 0}, "batch must be"),
        ("llama2-7b", {"batch": -5}, "batch must be"),
        ("llama2-7b", {"batch": True}, "batch must be"),
        ("llama2-7b", {"batch": "many"}, "batch must be"),
        ("llama2-7b", {"total": float("nan")}, "total must be"),
        ("llama2-7b", {"total": "3 epochs"}, "total must be"),
        (
            "llama2-7b",
            {"batch": "1M", "rule": "cubic"},
            r"rule must be one of \['linear', 'sqrt', 'keep'\], got 'cubic'",
        ),
        (
            "llama2-7b",
            {"batch": "1M", "total": "1k"},
            r"batch \(1M tokens\) must not be larger than total \(1k tokens\)",
        ),
        ("llama2-7b", {"size": "1B"}, "within the sizes of Llama 2.*extrapolate=True"),
        ("llama2-7b", {"size": "1B"}, "^size: "),
        ("llama2-7b", {"size": "7x"}, r"size must be a number of parameters .*, got '7x'"),
        ("llama2-7b", {"batch": "5 min"}, r"^batch must be a number of tokens such as '10B' or '500k', got '5 min'\.$"),
        (
            "llama2-7b",
            {"total": 0},
            r"^total must be a number of tokens such as '10B' or '500k', or 'chinchilla', got 0\.$",
        ),
        ("llama2-7b", {"batch": "1M", "extrapolate": 1}, "extrapolate must be True or False, got 1"),
        (
            "deepseek-llm",
            {"size": "7"},
            r"size \(7\) and total \(2T tokens\) make 8.4e\+13 operations.*extrapolate=True",
        ),
        ("deepseek-llm", {"size": "10T"}, r"good for 1e\+17 to 2.6e\+25.*extrapolate=True"),
        ("kimi-k2", {"size": "7B"}, "one size alone was published.*find_lr"),
        ("finetune", {"size": "7B"}, "finetune states no size.*find_lr"),
        ("finetune", {"batch": "1M"}, "finetune states no batch.*find_lr"),
    ],
)
def test_nonsense_is_refused(name, asked, said):
    with pytest.raises(ValueError, match=said):
        recipe(name).rescaled(**asked)


def test_beyond_the_family_on_request():
    assert recipe("llama2-7b").rescaled(size="1B", extrapolate=True)["peak_lr"].value == pytest.approx(3e-4)


def test_a_guess_is_called_one():
    grown = recipe("gpt3-125m").rescaled(size="1T", extrapolate=True)
    (why,) = [one.why for one in grown.changes if one.name == "peak_lr"]
    assert why.endswith("beyond the published sizes of GPT-3 and a guess: planning.rate_for_size")
    (why,) = [
        one.why for one in recipe("deepseek-llm").rescaled(size="7", extrapolate=True).changes if one.name == "peak_lr"
    ]
    assert "a guess" in why


@pytest.mark.parametrize("name", ["gpt3-1.3b", "llama2-13b", "deepseek-llm"])
def test_rates_never_rise_with_the_size_and_never_fall_with_the_batch(name):
    found = recipe(name)
    low, high = {"gpt3-1.3b": (0.125, 175), "llama2-13b": (7, 70), "deepseek-llm": (1, 67)}[name]
    sizes = [int(1e9 * low * (high / low) ** (step / 20)) for step in range(21)]
    rates = [found.rescaled(size=size)["peak_lr"].value for size in sizes]
    assert all(after <= before for before, after in itertools.pairwise(rates))
    rates = [found.rescaled(batch=batch)["peak_lr"].value for batch in (10_000, 10**6, 10**7, 10**8)]
    assert all(after > before for before, after in itertools.pairwise(rates))


def test_what_is_worked_out_from_an_unverified_value_says_so():
    found = recipe("mistral-7b").rescaled(batch="1M")
    for name in ("peak_lr", "schedule.warmup"):
        assert found[name].source.endswith("; the value before it is unverified")
        assert not found[name].verified
    assert "unverified" not in recipe("llama2-7b").rescaled(batch="1M")["peak_lr"].source
    twice = found.rescaled(batch="500k")
    assert twice["peak_lr"].source.endswith("; the value before it is unverified")
    assert found["batch"].source == "rescaled: as asked"
    share = recipe("minicpm").rescaled(batch="1M")["schedule.half_life"]
    assert share.source == "rescaled: keeps its part of the published run, whose length or batch is unverified; ours"
