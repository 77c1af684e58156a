"""Recipes by name, and what their decorator keeps."""

import doctest
import inspect
import pickle
import sys

import pytest

from lightning_llmopt import schedules
from lightning_llmopt.schedules import RECIPES, by_name, cosine, wsd

every_recipe = pytest.mark.parametrize("name", RECIPES)


def test_every_recipe_is_public():
    assert all(RECIPES[name] is getattr(schedules, name) for name in RECIPES)


@every_recipe
def test_the_example_in_the_docstring_is_right(name):
    """``--doctest-modules`` passes by what a decorator of another module returned."""
    recipe = inspect.unwrap(RECIPES[name])
    (example,) = doctest.DocTestFinder(recurse=False).find(recipe, name, sys.modules[recipe.__module__])
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@every_recipe
def test_a_recipe_looks_like_the_function_that_was_written(name):
    recipe = RECIPES[name]
    assert recipe.__name__ == name
    assert recipe.__doc__.startswith(inspect.unwrap(recipe).__doc__)
    assert all(rule.kind is rule.KEYWORD_ONLY for rule in inspect.signature(recipe).parameters.values())
    assert pickle.loads(pickle.dumps(recipe)) is recipe


def test_what_a_recipe_returns_knows_its_settings():
    assert wsd(decay="20%", warmup=3).settings == (("decay", "20%"), ("warmup", 3))
    assert by_name("cosine").settings == cosine().settings == ()
    with pytest.raises(TypeError, match=r"^wsd\(\) takes 0 positional arguments but 1 was given"):
        wsd(3)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (["cosine"], {}, r"schedule must be one of .*, got \['cosine'\]"),
        ("cosin", {}, r"schedule must be one of \['constant', .*\], got 'cosin'"),
        ("cosine", {"warm_up": 3}, r"cosine takes \['floor', 'warmup', .*\], got 'warm_up'"),
        ("cosine_restarts", {}, r"cosine_restarts needs \['first_cycle'\], got \[\]"),
        ("cosine", {"warmup": -3}, "warmup must be >= 0, got -3"),
    ],
)
def test_refuses_what_it_does_not_know(name, settings, message):
    with pytest.raises(ValueError, match=message):
        by_name(name, **settings)
