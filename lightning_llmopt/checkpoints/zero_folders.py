"""Folders of DeepSpeed: ``latest`` names one with a file of model states, and one of optimizer states for each rank."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .archives import Archive, examine
from .diagnosis import Contents, Diagnosis, Finding
from .trust import judge_globals, judge_instantiator
from .written import contents_of

LATEST = "latest"
_OPTIMIZER = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")


def diagnose_zero(folder: Path) -> Diagnosis:
    """Check a checkpoint of DeepSpeed: that ``latest`` leads somewhere, and that every rank's files are whole.

    Args:
        folder: One with ``latest``, or with a folder of ZeRO's files.
    """
    findings: list[Finding] = []
    inner = _inner(folder, findings)
    if inner is None:
        return Diagnosis(str(folder), "DeepSpeed checkpoint", tuple(findings))
    models, optimizers = _matching(inner, _MODEL), _matching(inner, _OPTIMIZER)
    names: dict[str, None] = {}
    values: list[Any] = []
    for file in [*models, *optimizers]:
        archive = examine(file)
        findings += _told(file, archive)
        if archive.pickled is not None:
            names.update(dict.fromkeys(archive.pickled.globals))
            values += [archive.pickled.value] if file in models else []
    findings += _complete(models, optimizers, values)
    findings += judge_globals(names)
    contents = contents_of(values[0]) if values else Contents()
    findings += judge_instantiator(
        values[0].get("hyper_parameters") if values and isinstance(values[0], dict) else None
    )
    return Diagnosis(str(folder), "DeepSpeed checkpoint", tuple(findings), contents)


def _inner(folder: Path, findings: list[Finding]) -> Path | None:
    """The folder that ``latest`` names."""
    try:
        tag = (folder / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        findings.append(Finding("error", f"has no readable file {LATEST}, which says which of its folders counts"))
        others = sorted(
            path.parent for pattern in ("*/*model_states.pt", "*model_states.pt") for path in folder.glob(pattern)
        )
        return others[0] if others else None
    if not tag or tag in (".", "..") or Path(tag).name != tag:
        findings.append(Finding("error", f"{LATEST} must name a folder beside it, got {tag[:100]!r}"))
        return None
    if not (folder / tag).is_dir():
        findings.append(Finding("error", f"{LATEST} names {tag!r}, and there is no such folder"))
        return None
    return folder / tag


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name))


def _told(file: Path, archive: Archive) -> Iterator[Finding]:
    for finding in archive.findings:
        yield Finding(finding.level, f"{file.name} {finding.text}")


def _complete(models: list[Path], optimizers: list[Path], values: list[Any]) -> Iterator[Finding]:
    """Whether there is a file for every rank that took part in saving."""
    told = next((value for value in values if isinstance(value, dict) and "dp_world_size" in value), None)
    if told is None:
        yield Finding("error", "does not tell how many processes wrote it: no model states can be read")
        return
    data, model = told.get("dp_world_size"), told.get("mp_world_size", 1)
    if not (isinstance(data, int) and isinstance(model, int) and 0 < data * model < 10**6):
        yield Finding("error", f"was written by {data!r} x {model!r} processes, if it is to be believed")
        return
    ranks = {(pipe, tensor) for pipe in range(data) for tensor in range(model)}
    each = any(match and match[1] for file in models if (match := _MODEL.fullmatch(file.name)))
    wanted = ranks if each else {(None, tensor) for tensor in range(model)}
    for kind, files, pattern, needed in (
        ("model states", models, _MODEL, wanted), ("optimizer states", optimizers, _OPTIMIZER, ranks),
    ):  # fmt: skip
        there = {_ranks(pattern, file) for file in files}
        missing = sorted(needed - there, key=str)
        if missing:
            which = ", ".join(str(tensor if pipe is None else pipe) for pipe, tensor in missing[:8])
            yield Finding("error", f"{kind} of rank {which} are missing: {data} x {model} processes wrote it")
        if there - needed:
            yield Finding("warning", f"has {kind} of {len(there - needed)} ranks more than wrote it: an older save's")
    yield Finding("ok", f"looked at {len(models)} files of model states and {len(optimizers)} of optimizer states")


def _ranks(pattern: re.Pattern[str], file: Path) -> tuple[int | None, int]:
    match = pattern.fullmatch(file.name)
    first, second = match.groups() if match else (None, "-1")
    return (None if first is None else int(first)), int(second)
