"""The demo, run as a user runs it: in a process of its own, at toy size."""

import gzip
import hashlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from math import log2
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "train_gpt.py"
sys.path.insert(0, str(EXAMPLES))  # the example's files import each other by bare name

from baselines import bigram, unigram, xz_after, xz_alone  # noqa: E402
from corpus import Corpus, RandomCrops, ScoredWindows, read_corpus  # noqa: E402
from gpt import GPT, IGNORED  # noqa: E402
from options import read_options  # noqa: E402
from run_folder import RunFolder  # noqa: E402

UPDATES = 65  # checkpoints come every 6, so the last one is not at the end
PEAK_RATE = 4e-3
TOY = ["--updates", str(UPDATES), "--batch", "2", "--precision", "fp32"]


def start(*words, **settings):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def demo(*words, **settings):
    """Exit status, output and error output of the demo."""
    process = start(*words, **settings)
    output, errors = process.communicate(timeout=100)
    return process.returncode, output, errors


def scalars(out):
    """``tag -> {update: value}`` from the run's one TensorBoard folder."""
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def planned(update):
    """The rate by hand: 2 % of 65 updates are 1 of warmup, 20 % are 13 of decay."""
    return PEAK_RATE * (1 - (max(0, update - 52) / 13) ** 0.5)


def bits_of_model(output):
    return float(re.search(r"GPT +│ +([\d.]+)", output)[1])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "excerpt.txt"
    path.write_bytes(gzip.decompress((EXAMPLES / "data/shakespeare/tempest.txt.gz").read_bytes())[:20_000])
    return path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, text):
    """Folder and output of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    status, output, errors = demo(*TOY, "--text", text, "--out", out)
    assert status == 0, errors
    return out, output, errors


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory, text):
    """Working folder, update and output of a run that got Ctrl-C soon after its first checkpoint."""
    cwd = tmp_path_factory.mktemp("interrupted")
    process = start(*TOY, "--text", text, "--out", "run", cwd=cwd)
    while not (cwd / "run/last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    return cwd, output, errors


def test_prints_the_model_beside_every_baseline(whole_run, text):
    _, output, errors = whole_run
    train, heldout = text.read_bytes()[:18_000], text.read_bytes()[18_000:]
    for bits in (8.0, unigram(train, heldout), bigram(train, heldout), xz_alone(heldout), xz_after(train, heldout)):
        assert f"{bits:.3f}" in output
    assert 2 < bits_of_model(output) < 6
    assert "Precision: fp32" in output
    assert "A sample from the model" in output
    assert output.count("Run of GPT") == output.count("End of the run") == 1
    assert f"updates    {UPDATES} applied, 0 skipped" in output
    assert "GPU available" not in output + errors  # Lightning's own messages
    assert "Warning" not in output + errors


def test_leaves_checkpoint_picture_and_events_and_says_where(whole_run):
    out, output, _ = whole_run
    assert (out / "schedule.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert "Gradient norm by layer" in page
    assert f"{UPDATES} applied, 0 skipped" in page
    for path in (out / "schedule.png", out / "last.ckpt", out / "tensorboard", out / "report.html"):
        assert str(path) in output
    assert f"tensorboard --logdir {out}/tensorboard" in output
    assert RunFolder(out).updates_done() == UPDATES
    tags = scalars(out)
    assert {"train/loss", "val/loss", "val/bits_per_byte", "grad_norm/total"} <= tags.keys()
    assert {f"grad_norm/layer/{place}" for place in ("embedding", "blocks.0", "blocks.3", "head")} <= tags.keys()
    assert any(tag.startswith("lr/") for tag in tags)


def test_rates_in_tensorboard_are_the_planned_ones(whole_run):
    out, _, _ = whole_run
    (rates,) = (values for tag, values in scalars(out).items() if tag.startswith("lr/"))
    assert len(rates) == UPDATES // 6
    assert rates == pytest.approx({update: planned(update) for update in rates})


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(interrupted_run):
    _, output, errors = interrupted_run
    update = int(re.search(r"Stopped after update (\d+)", output)[1])
    assert 6 <= update < UPDATES
    assert "--resume --out run" in output
    assert "Traceback" not in output + errors


def test_resumed_run_ends_where_an_undisturbed_one_does(interrupted_run, whole_run):
    cwd, output, _ = interrupted_run
    stopped = int(re.search(r"Stopped after update (\d+)", output)[1])
    command = shlex.split(output.split("To go on:")[1])  # the very words that were printed
    resumed = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)
    assert resumed.returncode == 0, resumed.stderr
    assert "Warning" not in resumed.stdout + resumed.stderr

    out, whole_output, _ = whole_run
    assert bits_of_model(resumed.stdout) == bits_of_model(whole_output)
    together, alone = scalars(cwd / "run"), scalars(out)
    for tag in ("train/loss", "grad_norm/total", *(tag for tag in alone if tag.startswith("lr/"))):
        together[tag].pop(stopped - 1, None), alone[tag].pop(stopped - 1, None)  # self.log skips an interrupted update
        assert together[tag] == alone[tag]


def test_resuming_a_finished_run_reports_again(whole_run):
    out, output, _ = whole_run
    status, again, errors = demo("--resume", "--out", out)
    assert status == 0, errors
    assert bits_of_model(again) == bits_of_model(output)


def test_wrong_option_is_one_sentence_and_status_2(tmp_path):
    status, output, errors = demo("--updates", "0", "--out", tmp_path / "run")
    assert status == 2
    assert "error: argument --updates: must be a whole number >= 1, got '0'." in errors
    assert "Traceback" not in errors
    assert not output


def refusal(monkeypatch, capsys, *words):
    """What the demo says to a command line that it does not take."""
    monkeypatch.setattr(sys, "argv", ["train_gpt.py", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        read_options("", least_heldout=GPT.CONTEXT)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--batch", "two"], "argument --batch: must be a whole number >= 1, got 'two'."),
        (["--seed", "-1"], "argument --seed: must be a whole number >= 0 and <= 4294967295, got '-1'."),
        (["--text", "nowhere"], "--text must be a file or folder that exists, got "),
        (["--text", "empty"], "--text must hold at least one readable text file, found none in "),
        (["--text", "short.txt"], "--text must hold at least 1280 bytes, "),
        (["--text", "broken.gz"], "--text must be a readable file, got "),
        (["--out", "short.txt"], "--out must be a folder, got the file short.txt."),
        (["--out", "."], "--out must be new, empty or an earlier run's folder, got . with other files."),
        (["--resume", "--out", "new"], "--resume needs a checkpoint in --out, found no new/last.ckpt."),
    ],
)
def test_refuses(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("short.txt").write_text("To be, or not to be")
    Path("broken.gz").write_text("not packed at all")
    assert sentence in refusal(monkeypatch, capsys, *words)


def test_resumed_run_keeps_its_settings(whole_run, monkeypatch, capsys):
    out, _, _ = whole_run
    sentence = refusal(monkeypatch, capsys, "--resume", "--out", out, "--batch", 3)
    assert f"--batch must stay 2 to resume the run in {out}, got 3." in sentence


def test_folder_is_read_recursively_without_what_is_no_text(tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.txt").write_bytes(b"a" * 100)
    (tmp_path / "deep/er/b.txt.gz").write_bytes(gzip.compress(b"b" * 200))
    (tmp_path / ".git/config").write_bytes(b"hidden" * 100)
    (tmp_path / "picture.png").write_bytes(b"\0" * 100)
    assert read_corpus(tmp_path, least_heldout=1) == Corpus(b"a" * 90 + b"b" * 180, b"a" * 10 + b"b" * 20, files=2)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 61])
def test_every_held_out_byte_is_scored_once_with_its_context(length):
    corpus = Corpus(bytes(range(100)), bytes(range(100, 100 + length)), files=1)
    scored = []
    for inputs, targets in ScoredWindows(corpus, context=8, batch=3):
        for row in zip(inputs.tolist(), targets.tolist(), strict=True):
            new = [(before, after) for before, after in zip(*row, strict=True) if after != IGNORED]
            assert len(new) <= 4
            assert all(after == before + 1 for before, after in new)
            scored += [after for _, after in new]
    assert bytes(scored) == corpus.heldout


def test_crops_depend_on_seed_and_update_alone():
    def crops(seed, updates):
        return RandomCrops(bytes(range(256)), context=4, batch=3, updates=updates, seed=seed)

    first, longer, other = (list(loader) for loader in (crops(0, 3), crops(0, 5), crops(1, 3)))
    assert [batch[0].tolist() for batch in first] == [batch[0].tolist() for batch in longer[:3]]
    assert [batch[0].tolist() for batch in first] != [batch[0].tolist() for batch in other]
    assert all((following == before + 1).all() for before, following in first)


def test_counted_baselines_agree_with_counting_by_hand():
    train, heldout = b"abracadabra", b"bar"
    counts, pairs = Counter(train), Counter(pairwise(train))
    single = -sum(log2((counts[byte] + 0.1) / (len(train) + 25.6)) for byte in heldout) / 3
    double = -sum(
        log2((pairs[pair] + 0.1) / (sum(n for (first, _), n in pairs.items() if first == pair[0]) + 25.6))
        for pair in zip(b"aba", b"bar", strict=True)
    ) / 3  # fmt: skip
    assert unigram(train, heldout) == pytest.approx(single)
    assert bigram(train, heldout) == pytest.approx(double)


def test_shipped_plays_are_those_of_the_readme_and_as_hard_as_they_were():
    folder = EXAMPLES / "data/shakespeare"
    readme = (folder / "README.md").read_text()
    for file in folder.glob("*.gz"):
        packed = file.read_bytes()
        for content in (packed, gzip.decompress(packed)):
            assert hashlib.sha256(content).hexdigest() in readme
            assert f"{len(content):,}" in readme
    corpus = read_corpus(None, least_heldout=1)
    assert (corpus.files, len(corpus.train), len(corpus.heldout)) == (7, 822_011, 91_330)
    train, heldout = corpus.train, corpus.heldout
    measured = unigram(train, heldout), bigram(train, heldout), xz_alone(heldout), xz_after(train, heldout)
    assert measured == pytest.approx((4.81, 3.58, 3.08, 2.54), abs=0.01)
