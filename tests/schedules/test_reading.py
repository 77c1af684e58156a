"""A recipe is the same however a file writes it."""

import inspect
from argparse import Namespace

import pytest

from lightning_llmopt.schedules import RECIPES, constant, linear, sequence, wsd
from lightning_llmopt.schedules.reading import read_spec

PATH = "lightning_llmopt.schedules"


@pytest.mark.parametrize(
    "written",
    [
        sequence(parts=[(linear(floor=0.5), 4), (constant(), None)]),
        {"recipe": "sequence", "parts": [[{"recipe": "linear", "floor": 0.5}, 4], ["constant", None]]},
        {"class_path": f"{PATH}.sequence", "init_args": {"parts": [
            [{"class_path": f"{PATH}.linear", "init_args": {"floor": 0.5}}, 4],
            [{"class_path": f"{PATH}.constant"}, None],
        ]}},
        {"class_path": f"{PATH}.sequence", "init_args": Namespace(parts=[
            (Namespace(class_path=f"{PATH}.named.linear", init_args=Namespace(floor=0.5)), 4), (constant(), None),
        ])},
    ],
)  # fmt: skip
def test_all_ways_mean_the_same(written):
    assert read_spec("schedule", written) == sequence(parts=[(linear(floor=0.5), 4), (constant(), None)])


def needs_settings(name):
    rules = inspect.signature(RECIPES[name]).parameters.values()
    return any(rule.default is rule.empty for rule in rules)


@pytest.mark.parametrize("name", [name for name in RECIPES if not needs_settings(name)])
def test_a_name_is_enough_where_nothing_is_needed(name):
    assert read_spec("schedule", name) == read_spec("schedule", {"class_path": f"{PATH}.{name}"}) == RECIPES[name]()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (3, "schedule must be a recipe, its name or a dict with both, got 3"),
        ({3: 4}, "schedule must be a recipe, its name or a dict with both"),
        ({"warmup": 3}, "schedule must be a dict with a recipe and its settings"),
        ("noam", r"schedule must be one of \['constant', .*, got 'noam'.$"),
        ({"recipe": "wsds"}, r"got 'wsds'\. Did you mean 'wsd_s'\?"),
        ({"recipe": "wsd", "warmpu": 2}, r"wsd takes \['decay', .*\], got 'warmpu'\. Did you mean 'warmup'\?"),
        ({"class_path": f"{PATH}.wsd", "init_args": {"warmpu": 2}}, r"wsd takes \['decay', .*Did you mean 'warmup'\?"),
        ({"class_path": f"{PATH}.wsd", "init_args": [2]}, r"schedule: init_args must be a dict of settings of wsd"),
        ({"class_path": f"{PATH}.wsd", "warmup": 2}, "schedule takes class_path and init_args, got 'warmup' beside"),
        ({"class_path": f"{PATH}.cosin"}, r"class_path must end in one of \[.*Did you mean 'cosine'\?"),
        ({"class_path": "elsewhere.wsd"}, "class_path must be 'lightning_llmopt.schedules.wsd', got 'elsewhere.wsd'"),
    ],
)
def test_what_is_no_recipe_is_refused(written, message):
    with pytest.raises(ValueError, match=message):
        read_spec("schedule", written)


def test_a_recipe_itself_is_left_as_it_is():
    spec = wsd(warmup=3)
    assert read_spec("schedule", spec) is spec
