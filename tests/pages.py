"""The pages people read, and what stands in them: blocks of code with what they print, commands, links, headings.

    python tests/pages.py docs/howto/spike.md     # write what the blocks really print under them

A comment right above a block says what a reader need not see: ``<!-- not run: needs 8 GPUs -->``.
A block of language ``output`` is what the block above it prints, with ``...`` for what differs from run to run.
"""

import contextlib
import doctest
import io
import logging
import math
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"-?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)")
FENCE = re.compile(r"^( *)(`{3,})([^`]*)$")
NOISE = ("GPU available", "TPU available", "💡", "`Trainer.fit` stopped", "Seed set to", "Rest", "`weights_only`")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it opens, its language, its lines and the comment above it."""

    page: Path
    line: int
    language: str
    text: str
    note: str
    output: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def not_run(self) -> str | None:
        """Why nobody runs it here, if its comment says so."""
        found = re.match(r"not run: (.*)", self.note)
        return found and found[1]


def pages() -> list[Path]:
    docs = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
    tops = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [*tops, *docs, *sorted((ROOT / "examples").glob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in order; an ``output`` block belongs to the one above it."""
    blocks: list[Block] = []
    for block in _fenced(page):
        if block.language == "output":
            assert blocks, f"{block.place}: an output block needs a block above it that prints."
            before = blocks.pop()
            block = Block(before.page, before.line, before.language, before.text, before.note, block.text)
        blocks.append(block)
    return blocks


def _fenced(page: Path) -> Iterator[Block]:
    lines = page.read_text().splitlines()
    opened, begin = None, 0
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, begin = fence, number
        elif opened and fence and len(fence[2]) >= len(opened[2]) and not fence[3].strip():
            text = "".join(line[len(opened[1]) :] + "\n" for line in lines[begin + 1 : number])
            yield Block(page, begin + 1, opened[3].strip(), text, _note_above(lines, begin))
            opened = None
    assert opened is None, f"{page.relative_to(ROOT)}:{begin + 1}: this block is never closed."


def _note_above(lines: list[str], begin: int) -> str:
    above = next((line.strip() for line in reversed(lines[:begin]) if line.strip()), "")
    found = re.fullmatch(r"<!-- (.*) -->", above)
    return found[1] if found else ""


def prose_of(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^( *)(`{3,})[^`\n]*\n.*?^\1\2`*\s*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """What ``#...`` may name: headings as GitHub and MyST spell them, and explicit targets."""
    prose = prose_of(page)
    heads = re.findall(r"^#+ +(.*)$", prose, flags=re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head).strip().lower() for head in heads]
    slugs = [re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain]
    return {*slugs, *re.findall(r"^\(([\w-]+)\)=$", prose, flags=re.MULTILINE)}


@contextlib.contextmanager
def heard() -> Iterator[io.StringIO]:
    """What is printed, and what Lightning's ``rank_zero_info`` says, without Lightning's lines about the machine."""
    said, handler = io.StringIO(), logging.StreamHandler(None)
    handler.stream = said
    handler.addFilter(lambda record: not record.getMessage().startswith(NOISE))
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(said):
            yield said
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def agrees(printed: str, expected: str) -> bool:
    """Whether the page shows what was printed: ``...`` stands for anything, runs of spaces count as one, and numbers
    with a point or an exponent may differ by 5 %, as they do from processor to processor."""
    rules = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    shapes = [re.sub(r" +", " ", NUMBER.sub("#", text.strip())) + "\n" for text in (expected, printed)]
    if not doctest.OutputChecker().check_output(*shapes, rules):
        return False
    numbers = [[float(one) for one in NUMBER.findall(text)] for text in (expected, printed)]
    if "..." in expected and len(numbers[0]) != len(numbers[1]):
        return True
    return all(math.isclose(one, other, rel_tol=0.05, abs_tol=1e-9) for one, other in zip(*numbers, strict=True))


def run_page(page: Path, given: dict[str, object]) -> Iterator[tuple[Block, str]]:
    """Run the Python blocks one after the other in one namespace; what each prints."""
    for block in blocks_of(page):
        if block.language != "python":
            continue
        code = compile("\n" * block.line + block.text, str(page), "exec")  # a traceback has the page's line
        if block.not_run:
            continue
        with heard() as said:
            exec(code, given)
        yield block, said.getvalue()


def write_outputs(page: Path, given: dict[str, object]) -> None:
    """Put what the blocks print into the ``output`` blocks that are there."""
    from shell_commands import printed_by

    text, written = page.read_text(), ""
    printed = {block.line: said for block, said in run_page(page, given)}
    for block in blocks_of(page):
        if block.output is not None and "..." not in block.output:
            before, text = text.split(f"```output\n{block.output}```", 1)
            said = printed[block.line] if block.line in printed else printed_by(block)
            shown = "\n".join(line.rstrip() for line in said.rstrip().splitlines())
            written += f"{before}```output\n{shown}\n```"
    page.write_text(written + text)


def main(*names: str) -> None:
    """Each page in a folder that is thrown away."""
    from toys import toys

    for page in [Path(name).resolve() for name in names]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            sys.argv = [page.name]
            write_outputs(page, toys())


if __name__ == "__main__":
    main(*sys.argv[1:])
