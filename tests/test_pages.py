"""Every block of the pages runs or parses, prints what the page shows, and every link leads somewhere."""

import functools
import re
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from links import outside, problem_of, targets_of
from pages import ROOT, agrees, anchors_of, blocks_of, pages, run_page
from shell_commands import SESSION, check, commands_of, failure_of_session
from toys import toys
from yaml_blocks import parse

LANGUAGES = ("python", "yaml", "console", "bash", "text", "output", "toml", "html", "")
REASONS = ("needs ", "takes ", "an excerpt")
every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@every_page
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # pages resume
def test_python_blocks_run_and_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [page.name])
    for block, printed in run_page(page, toys()):
        if block.output is not None:
            assert agrees(printed, block.output), (
                f"{block.place} prints something else than the output block under it; "
                f"`python tests/pages.py {page.relative_to(ROOT)}` writes it anew. It printed:\n{printed}"
            )


@every_page
def test_commands_run_or_are_understood(page, tmp_path, monkeypatch):
    if page.name == "cli.md":
        return  # tests/test_cli_page.py runs each of its commands, and compares what it prints
    monkeypatch.chdir(tmp_path)
    for place, command, expected in commands_of(page):
        problem = check(command, page=page, expected=expected)
        assert problem is None, f"{place}: `{command}`: {problem}"


@pytest.mark.parametrize(
    "block",
    [block for page in pages() for block in blocks_of(page) if block.note == SESSION],
    ids=lambda block: block.place,
)
def test_commands_that_follow_on_from_one_another_run_in_a_shell(block, tmp_path):
    problem = failure_of_session(block, tmp_path)
    assert problem is None, f"{block.place}: {problem}"


@every_page
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
def test_yaml_blocks_are_configurations(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(page):
        if block.language == "yaml" and not block.not_run:
            problem = parse(block.text, tmp_path)
            assert problem is None, f"{block.place}: LightningCLI does not take this block: {problem}"


@every_page
def test_blocks_have_a_language_and_a_reason_if_they_are_not_run(page):
    for block in blocks_of(page):
        known = block.language in LANGUAGES or block.language.startswith("{")
        assert known, f"{block.place}: the language of a block is one of {LANGUAGES}, got {block.language!r}."
        looks = re.search(r"^(\$ |make |pip |python |llmopt |torchrun )", block.text, flags=re.MULTILINE)
        bare = block.language in ("", "text") and looks
        assert not bare, f"{block.place}: {looks and looks[0]!r} looks like a command: open the block with ```console."
        assert block.not_run is None or block.not_run.startswith(REASONS), (
            f"{block.place}: a reason for not running a block begins with one of {REASONS}, got {block.not_run!r}."
        )


def test_few_blocks_are_not_run():
    left_out = [block.place for page in pages() for block in blocks_of(page) if block.not_run]
    assert len(left_out) <= 12, f"{len(left_out)} blocks say that they are not run: {left_out}"


@every_page
def test_links_to_files_and_headings_lead_somewhere(page):
    for target in targets_of(page):
        if urlsplit(target).scheme:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.relative_to(ROOT)} links to {target}, and there is no {name}."
        if anchor and file.suffix == ".md":
            found = sorted(anchors_of(file))
            assert anchor in found, f"{page.relative_to(ROOT)} links to {target}; its headings are {found}."


def test_links_to_other_sites_are_well_formed():
    known = {line.split()[0] for line in (ROOT / "docs" / "sites.txt").read_text().splitlines() if line[:1] not in "# "}
    for file, target in outside():
        where, parts = file.relative_to(ROOT), urlsplit(target)
        assert parts.scheme in ("https", "mailto"), f"{where}: links are https, got {target}."
        assert parts.hostname in known, (
            f"{where}: {target} is of no site in docs/sites.txt; look at it and add the site."
        )
        if parts.hostname == "arxiv.org":
            assert re.fullmatch(r"/(abs|pdf)/\d{4}\.\d{4,5}(v\d+)?", parts.path), f"{where}: no arXiv paper: {target}"


def test_an_address_that_does_not_answer_is_a_problem(tmp_path):
    (tmp_path / "here.html").write_text("here")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}"
        assert problem_of(f"{site}/here.html") is None
        assert problem_of(f"{site}/gone.html") == "status 404"
        server.shutdown()
    assert "refused" in problem_of(site)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_output_of_a_page_is_compared_with_what_was_printed():
    assert agrees("loss 0.25 at update 3\n", "loss ... at update 3\n")
    assert not agrees("loss 0.25 at update 4\n", "loss ... at update 3\n")
    assert agrees("loss   0.251\n", "loss 0.25\n")
    assert not agrees("loss 0.28\n", "loss 0.25\n")
    assert not agrees("loss 0.25\nand more\n", "loss 0.25\n")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make no-such-target", "there is no target"),
        ("python examples/no_such.py", "no such file"),
        ("python examples/find_lr.py --no-such 3", "knows no --no-such"),
        ("pip install 'lightning-llmopt[nothing]'", "no such extra"),
        ("pip install -c no-such.txt .", "no such file"),
        ("llmopt plan 70B --gpus none", "exit status 2"),
        ("llmopt frobnicate PATH", "exit status 2"),
        ("frobnicate --now", "no rule"),
    ],
)
def test_a_command_that_cannot_run_is_found(command, problem):
    assert problem in check(command, page=ROOT / "README.md")


def test_a_command_that_runs_has_no_problem():
    assert check("llmopt plan 7B", page=ROOT / "README.md") is None
    assert "something else" in check("llmopt plan 7B", page=ROOT / "README.md", expected="It fits.")


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schedule: {recipe: wsd, warmpu: 2%}", "warmpu"),
        ("- {class_path: lightning_llmopt.callbacks.GradientNormClip, init_args: {max_norm: -1}}", "max_norm"),
        ("max_steps: many", "max_steps"),
        ("nothing_of_ours: 1", "neither a trainer"),
    ],
)
def test_a_configuration_that_is_wrong_is_found(text, problem, tmp_path):
    assert problem in parse(text, tmp_path)
