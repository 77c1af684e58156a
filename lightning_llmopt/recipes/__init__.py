"""What others used: published runs by name, every value with its source, to read, to rescale and to attach."""

from typing import Any

from .receipts import CHECKED as CHECKED
from .receipts import Change as Change
from .receipts import Receipt as Receipt
from .recipe import Recipe as Recipe
from .rescaling import compute_fit as compute_fit
from .shelf import Recipes as Recipes
from .shelf import recipe as recipe
from .shelf import recipes as recipes


def __getattr__(name: str) -> Any:
    """``UseRecipe``, once somebody asks: a recipe is read without Lightning."""
    if name == "UseRecipe":
        from .use_recipe import UseRecipe

        return UseRecipe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Every name, ``UseRecipe`` too."""
    return sorted({*globals(), "UseRecipe"})
