"""``llmopt report``: a page from a run's log."""

import pytest

from lightning_llmopt.cli import main


@pytest.fixture
def folder(tmp_path):
    """A log as Lightning's CSVLogger writes it."""
    (tmp_path / "run").mkdir()
    rows = [f"{step},{2.0 - step / 10}" for step in range(10)]
    (tmp_path / "run" / "metrics.csv").write_text("\n".join(["step,train_loss", *rows]) + "\n")
    return tmp_path / "run"


def test_the_page_is_written_into_the_folder(capsys, folder):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Wrote {folder / 'report.html'}.\n"
    assert "train_loss" in (folder / "report.html").read_text()


def test_or_where_it_is_told(capsys, folder, tmp_path):
    assert main(["report", str(folder), "--to", str(tmp_path / "pages" / "wsd.html")]) == 0
    assert (tmp_path / "pages" / "wsd.html").exists()
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{folder}/nowhere"], "got '{folder}/nowhere'"),
        (["{folder}/empty"], "{folder}/empty"),
        (["{folder}", "--to", "page.pdf"], "--to must be a file that ends in .html, got 'page.pdf'."),
        ([], "FOLDER must be given."),
    ],
)
def test_what_is_wrong_is_a_sentence(capsys, folder, words, sentence):
    (folder / "empty").mkdir()
    assert main(["report", *(word.format(folder=folder) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("llmopt: ")
    assert sentence.format(folder=folder) in err
    assert not out
