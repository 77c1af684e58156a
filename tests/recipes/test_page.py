"""docs/recipes.md says what the recipes say."""

import re
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI

from lightning_llmopt.recipes import recipes

from fitting import Regression, loader

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def test_the_table_of_all_recipes_is_that_of_the_room():
    assert re.search(r"```text\n(.*?)\n```", PAGE, flags=re.DOTALL)[1] == str(recipes())


def test_what_is_not_verified_is_listed_for_every_recipe():
    rows = {}
    for name, unverified, quoted in re.findall(r"^\| ([\w.-]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE):
        rows[name] = [[] if cell == "none" else cell.split(", ") for cell in (unverified, quoted)]
    rows.pop("recipe")
    expected = {
        found.name: [[one.name for one in found if one.checked == kind] for kind in ("unverified", "quoted")]
        for found in recipes()
    }
    assert rows == {name: kinds for name, kinds in expected.items() if any(kinds)}


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL))
def test_what_the_page_writes_in_yaml_runs(tmp_path, monkeypatch, block):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(block)
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    quiet = {"max_steps": 2, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    cli = LightningCLI(
        Regression, run=False, save_config_callback=None, seed_everything_default=0, trainer_defaults=quiet
    )
    cli.trainer.fit(Regression(), loader())
    assert type(cli.trainer.optimizers[0]).__name__ == ("AdamW" if "UseRecipe" in block else "SGD")
