"""Addresses that pages and docstrings link to.

python tests/links.py     # `make links`: opens every address of another site, and says which do not answer
"""

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from pages import ROOT, pages, prose_of

BROWSER = {"User-Agent": "Mozilla/5.0 (lightning-llmopt, make links)"}
GUARDED = (401, 403, 405, 429)  # the page is there, and asks who we are


def targets_of(page: Path) -> Iterator[str]:
    """Addresses of links and pictures; ``[text]: address`` too."""
    prose = re.sub(r"`[^`\n]*`", "", prose_of(page))
    yield from re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose)
    yield from re.findall(r"^\[[^\]]+\]: +(\S+)", prose, flags=re.MULTILINE)


def outside() -> Iterator[tuple[Path, str]]:
    """File and address of every link to another site."""
    for page in pages():
        yield from ((page, target) for target in targets_of(page) if urlsplit(target).scheme)
    for file in sorted((ROOT / "lightning_llmopt").rglob("*.py")):
        yield from ((file, one.rstrip(".,;:")) for one in re.findall(r"https?://[^\s\"'<>`)\]]+", file.read_text()))


def problem_of(address: str) -> str | None:
    """Why an address does not open, None if it does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=BROWSER), timeout=30):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code in GUARDED else f"status {error.code}"
    except OSError as error:
        return str(error)


def main() -> int:
    """Open each address once; the exit status is 1 if one does not answer."""
    places = {address: file.relative_to(ROOT) for file, address in outside()}
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(places, pool.map(problem_of, places), strict=True))
    broken = [f"{places[address]}: {address}: {problem}" for address, problem in found.items() if problem]
    print(*broken, f"{len(places)} addresses, {len(broken)} of them broken.", sep="\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
