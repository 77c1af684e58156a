"""``llmopt recipes``: all of them, one, and one that is changed to fit."""

import re

import pytest

from lightning_llmopt.cli import main
from lightning_llmopt.recipes import recipe, recipes


def words(text):
    """Text without its line breaks."""
    return " ".join(text.split())


def test_all_are_listed_in_80_columns(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^([a-z][\w.-]+) +(?:any|\d)", out, re.MULTILINE) == list(recipes().names)
    assert re.search(r"^llama2-7b +7B +AdamW +3.0e-04 +cosine +4M +2T +1$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", recipes().names)
def test_one_is_shown_whole_in_80_columns(capsys, name):
    assert main(["recipes", name]) == 0
    out = capsys.readouterr().out
    assert words(out) == words(str(recipe(name)).replace("verified", "checked", 1))
    assert max(map(len, out.splitlines())) <= 80


def test_it_is_changed_to_fit_another_run(capsys):
    assert main(["recipes", "llama2-7b", "--batch", "500k", "--total", "10B", "--rule", "linear"]) == 0
    out = words(capsys.readouterr().out)
    assert "changed batch: 4M -> 500k: as asked" in out
    expected = str(recipe("llama2-7b").rescaled(batch="500k", total="10B", rule="linear"))
    assert out == words(expected.replace("verified", "checked", 1))


def test_in_a_terminal_rich_draws_the_list(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    main(["recipes"])
    out = capsys.readouterr().out
    assert "\x1b[" in out
    assert all(name in out for name in recipes().names)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["llama-7b"], "got 'llama-7b'. Did you mean 'llama2-7b'?"),
        (["llama2-7b", "--batch", "x"], "--batch must be a number of tokens such as '10B'"),
        (["llama2-7b", "--size", "x"], "--size must be a number of parameters such as"),
        (["llama2-7b", "--rule", "cubic"], "--rule must be one of sqrt, linear, got 'cubic'."),
        (["finetune", "--batch", "4M"], "finetune states no batch, so there is nothing to scale from"),
        (["--batch", "4M"], "--batch changes one recipe: NAME must be given."),
    ],
)
def test_what_is_wrong_is_a_sentence(capsys, given, sentence):
    assert main(["recipes", *given]) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert not out
