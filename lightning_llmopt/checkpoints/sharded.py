"""Folders of torch's distributed checkpoints: ``.metadata``, files of shards, and what Lightning puts beside them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .archives import examine, examine_stretch
from .diagnosis import Contents, Diagnosis, Finding
from .pickles import Built, Pickled, read_pickle
from .trust import judge_globals, judge_instantiator
from .written import contents_of

METADATA, BESIDE = ".metadata", "meta.pt"


@dataclass(frozen=True)
class Stored:
    """Where one piece of a tensor lies.

    Args:
        file: Name of a file in the folder.
        start: Where it begins there [bytes].
        length: How long it is [bytes].
    """

    file: str
    start: int
    length: int


def diagnose_sharded(folder: Path) -> Diagnosis:
    """Check a sharded checkpoint: that everything that ``.metadata`` names is there, and whole.

    Args:
        folder: One with ``.metadata``, or with shards that lack it.
    """
    findings: list[Finding] = []
    contents = _beside(folder, findings)
    pickled = _metadata(folder, findings)
    if pickled is not None:
        names = dict.fromkeys(pickled.globals)
        pieces = list(_pieces(pickled, findings))
        findings += _check_pieces(folder, pieces, names)
        findings += judge_globals(names)
    return Diagnosis(str(folder), "sharded checkpoint", tuple(findings), contents)


def _beside(folder: Path, findings: list[Finding]) -> Contents:
    file = folder / BESIDE
    if not file.exists():
        findings.append(Finding("warning", f"has no {BESIDE}, where Lightning keeps the step, loops and callbacks"))
        return Contents()
    archive = examine(file)
    findings += [Finding(each.level, f"{BESIDE} {each.text}") for each in archive.findings]
    if archive.pickled is None:
        return Contents()
    findings += judge_globals(archive.pickled.globals)
    value = archive.pickled.value
    findings += judge_instantiator(value.get("hyper_parameters") if isinstance(value, dict) else None)
    return contents_of(value)


def _metadata(folder: Path, findings: list[Finding]) -> Pickled | None:
    """The list of what there should be, read as data: torch itself unpickles it."""
    file = folder / METADATA
    try:
        return read_pickle(file.read_bytes())
    except FileNotFoundError:
        findings.append(
            Finding("error", f"has no {METADATA}: the save was broken off before its end, and it cannot be opened")
        )
    except (OSError, ValueError) as error:
        findings.append(Finding("error", f"{METADATA}: {error}"))
    return None


def _pieces(pickled: Pickled, findings: list[Finding]) -> Iterator[Stored]:
    """Every piece that the metadata speak of."""
    value = pickled.value
    state = value.state if isinstance(value, Built) else None
    stored = state.get("storage_data") if isinstance(state, dict) else None
    if not isinstance(stored, dict):
        findings.append(Finding("error", f"{METADATA} does not say where anything is stored"))
        return
    wanted = _number_of_pieces(state.get("state_dict_metadata") if isinstance(state, dict) else None)
    if wanted is not None and wanted != len(stored):
        findings.append(
            Finding("error", f"{METADATA} knows of {wanted} pieces of tensors, and where {len(stored)} lie")
        )
    for entry in stored.values():
        told = entry.state if isinstance(entry, Built) else None
        known: dict[str, Any] = told if isinstance(told, dict) else {}
        file, start, length = (known.get(key) for key in ("relative_path", "offset", "length"))
        if isinstance(file, str) and isinstance(start, int) and isinstance(length, int) and min(start, length) >= 0:
            yield Stored(file, start, length)
        else:
            findings.append(Finding("error", f"{METADATA} has an entry that names no place in a file"))
            return


def _number_of_pieces(tensors: Any) -> int | None:
    """How many pieces all tensors and values have; ``None`` if that is not told."""
    if not isinstance(tensors, dict):
        return None
    states = [entry.state for entry in tensors.values() if isinstance(entry, Built)]
    return sum(len(state["chunks"]) if isinstance(state, dict) and "chunks" in state else 1 for state in states)


def _check_pieces(folder: Path, pieces: list[Stored], names: dict[str, None]) -> Iterator[Finding]:
    """Look at every file once; ``names`` takes what its pickles would import."""
    by_file: dict[str, list[Stored]] = defaultdict(list)
    for piece in pieces:
        by_file[piece.file].append(piece)
    whole = 0
    for name, inside in sorted(by_file.items()):
        if len(PurePosixPath(name).parts) != 1 or len(PureWindowsPath(name).parts) != 1 or name == "..":
            yield Finding("error", f"{METADATA} names a file outside the folder, {name[:100]!r}")
            continue
        file = folder / name
        if not file.is_file():
            yield Finding("error", f"shard {name} is missing, with {len(inside)} pieces of tensors")
            continue
        told = list(dict.fromkeys(_faults(file, inside, names)))
        faults = [finding for finding in told if finding.level == "error"]
        yield from faults[:5]
        if len(faults) > 5:
            yield Finding("error", f"shard {name}: {len(faults) - 5} more faults")
        yield from [finding for finding in told if finding.level != "error"][:1]  # the same all through a file
        whole += not faults
    yield Finding("ok" if whole == len(by_file) else "note", f"{whole} of {len(by_file)} shards are whole")
    strangers = sorted(file.name for file in folder.glob("*.distcp") if file.name not in by_file)
    if strangers:
        yield Finding("warning", f"{', '.join(strangers[:4])}: shards that {METADATA} does not know, of another save")


def _faults(file: Path, pieces: list[Stored], names: dict[str, None]) -> Iterator[Finding]:
    size, needed = file.stat().st_size, max(piece.start + piece.length for piece in pieces)
    if size < needed:
        yield Finding("error", f"shard {file.name} was cut short: {size:,} bytes of {needed:,} are there")
    try:
        with file.open("rb") as opened:
            for piece in pieces:
                if piece.start + piece.length > size:
                    continue
                archive = examine_stretch(opened, start=piece.start, length=piece.length)
                for fault in archive.findings:
                    yield Finding(fault.level, f"shard {file.name} at byte {piece.start:,}: {fault.text}")
                names.update(dict.fromkeys(archive.pickled.globals if archive.pickled else ()))
    except OSError as error:
        yield Finding("error", f"shard {file.name} cannot be read: {error.strerror or error}")
