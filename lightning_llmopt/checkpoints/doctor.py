"""One door: a path goes in, a diagnosis comes out."""

from collections.abc import Iterator
from pathlib import Path

from .archives import examine
from .diagnosis import Contents, Diagnosis, Finding
from .sharded import METADATA, diagnose_sharded
from .trust import judge_globals, judge_instantiator
from .written import contents_of, is_lightnings
from .zero_folders import LATEST, diagnose_zero

_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_UNFINISHED = (".tmp", ".part", ".partial", ".incomplete")
_REQUEST = "ANNEAL"
_MOST_FILES = 100_000


def diagnose(path: str | Path) -> Diagnosis:
    """Look at a checkpoint, or at the folder of a run, without running anything that is in it.

    Nothing is unpickled: pickles are read as data, so that a file that would run code is told and not obeyed. What is
    known: files of ``torch.save`` and the Trainer, torch's sharded checkpoints (FSDP, FSDP2, tensor parallel), and
    DeepSpeed's. In a run's folder every checkpoint is looked at.

    Args:
        path: File or folder.

    Returns:
        What was found; ``.ok`` if there is no fault, and ``str`` for a reader.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".ckpt") as file:
        ...     diagnosis = diagnose(file.name)
        >>> diagnosis.ok, diagnosis.findings[0].text
        (False, 'is empty')
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"path must be a checkpoint or a run's folder, and there is nothing at {str(place)!r}.")
    if not place.is_dir():
        return _diagnose_file(place)
    kind = _kind(place)
    return {"sharded": diagnose_sharded, "zero": diagnose_zero, "run": _diagnose_run}[kind](place)


def _kind(folder: Path) -> str:
    """Which kind of folder it is, by the files that only that kind has."""
    if (folder / METADATA).exists() or next(folder.glob("*.distcp"), None) or (folder / "meta.pt").exists():
        return "sharded"
    if (folder / LATEST).is_file() or next(folder.glob("*zero_pp_rank_*"), None):
        return "zero"
    lost = folder.suffix == ".ckpt" and next(folder.glob("*/*zero_pp_rank_*"), None)  # without `latest`
    return "zero" if lost else "run"


def _diagnose_file(file: Path) -> Diagnosis:
    archive = examine(file)
    findings, contents, kind = list(archive.findings), Contents(), "checkpoint"
    if archive.pickled is not None:
        value = archive.pickled.value
        findings += judge_globals(archive.pickled.globals)
        findings += judge_instantiator(value.get("hyper_parameters") if isinstance(value, dict) else None)
        contents, kind = contents_of(value), "checkpoint" if is_lightnings(value) else "file of torch.save"
        if not any(finding.level == "error" for finding in archive.findings):
            right = ", all there" if archive.findings else ": all checksums are right"
            findings.append(Finding("ok", f"{archive.records} records, {archive.size:,} bytes{right}"))
    return Diagnosis(str(file), kind, tuple(findings), contents)


def _diagnose_run(folder: Path) -> Diagnosis:
    checkpoints = tuple(diagnose(path) for path in sorted(_checkpoints(folder)))
    return Diagnosis(str(folder), "folder of a run", tuple(_about_run(folder, checkpoints)), parts=checkpoints)


def _about_run(folder: Path, checkpoints: tuple[Diagnosis, ...]) -> Iterator[Finding]:
    """What lies in the folder beside checkpoints."""
    whole = [one for one in checkpoints if one.ok]
    if not checkpoints:
        yield Finding("warning", "no checkpoint in it")
    else:
        yield Finding(
            "ok" if len(whole) == len(checkpoints) else "note",
            f"{len(whole)} of {len(checkpoints)} checkpoints are whole",
        )
    steps = [(one.contents.step, one.path) for one in whole if one.contents.step is not None]
    if steps:
        step, path = max(steps)
        yield Finding("ok", f"the newest to go on from: {path}, update {step}")
    files = [file for _, file in zip(range(_MOST_FILES), folder.rglob("*"), strict=False)]
    for name, what in (("hparams.yaml", "hyperparameters"), ("config.yaml", "LightningCLI's configuration")):
        found = [file for file in files if file.name == name]
        if found:
            yield Finding("note", f"{what}: {found[0]}")
    events = [file for file in files if ".tfevents." in file.name]
    some = "1 file" if len(events) == 1 else f"{len(events)} files"
    yield Finding("note", f"{some} of TensorBoard events" if events else "no TensorBoard events")
    empty = [file for file in events if file.is_file() and not file.stat().st_size]
    if empty:
        yield Finding("warning", f"{empty[0]} is empty: the run ended before it logged anything")
    for file in files:
        if file.name == _REQUEST:
            yield Finding(
                "warning", f"{file} is there: a run that goes on here will come to its end at once. Delete it."
            )
        elif file.name.endswith(_UNFINISHED) or ".tmp." in file.name:
            yield Finding("warning", f"{file} was left behind by a save that was broken off: it can be deleted")


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Checkpoints below the folder; nothing within one of them counts again."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            if _kind(path) == "run":
                yield from _checkpoints(path)
            else:
                yield path
        elif path.suffix in _SUFFIXES:
            yield path
