"""Structure of a file that ``torch.save`` wrote: a zip archive with one pickle and a record for every storage."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .diagnosis import Finding
from .pickles import Built, Global, Pickled, read_pickle

_CHUNK = 1 << 20
_LARGEST_PICKLE = 1 << 30
_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexDouble": 16, "ComplexFloat": 8, "Untyped": 1,
}  # fmt: skip
_BEGINNINGS = {
    b"PK\x03\x04": "has no central directory at its end: it was cut short while it was written or copied",
    b"\x80\x02\x8a\n": "is in torch's old format, which has no checksums: save it anew with torch.save",
}


@dataclass(frozen=True)
class Archive:
    """What was found in a file of ``torch.save``.

    Args:
        findings: Faults, and what unpickling would do.
        pickled: What it holds; ``None`` if that cannot be read.
        records: Number of records whose checksum is right.
        size: Their bytes.
    """

    findings: tuple[Finding, ...]
    pickled: Pickled | None = None
    records: int = 0
    size: int = 0


class Stretch:
    """A part of a file that looks like a file, for archives that lie one after the other.

    Args:
        file: The whole, open for reading.
        start: Where the part begins [bytes].
        length: How long it is [bytes].
    """

    def __init__(self, file: IO[bytes], *, start: int, length: int) -> None:
        self.file, self.start, self.length, self.at = file, start, length, 0

    def seekable(self) -> bool:
        """As a file."""
        return True

    def tell(self) -> int:
        """As a file."""
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file."""
        self.at = (0, self.at, self.length)[whence] + offset
        if self.at < 0:
            raise OSError("seek before the beginning")
        return self.at

    def read(self, size: int = -1) -> bytes:
        """As a file."""
        left = max(0, self.length - self.at)
        self.file.seek(self.start + self.at)
        content = self.file.read(left if size is None or size < 0 else min(size, left))
        self.at += len(content)
        return content


def examine(file: Path) -> Archive:
    """Check structure, names and checksums of a file of ``torch.save``, and read its pickle as data.

    Args:
        file: Which one.
    """
    try:
        with file.open("rb") as opened:
            length = file.stat().st_size
            return examine_stretch(opened, start=0, length=length)
    except OSError as error:
        return Archive((Finding("error", f"{file.name} cannot be read: {error.strerror or error}"),))


def examine_stretch(file: IO[bytes], *, start: int, length: int) -> Archive:
    """The same for an archive within a file."""
    stretch: Any = Stretch(file, start=start, length=length)
    if not length:
        return Archive((Finding("error", "is empty"),))
    try:
        archive = zipfile.ZipFile(stretch)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, OSError, MemoryError) as error:
        stretch.seek(0)
        why = _BEGINNINGS.get(stretch.read(4)) or _other_tools(stretch) or f"is no file of torch.save ({error})"
        return Archive((Finding("error", f"{why}; {length:,} bytes are there"),))
    with archive:
        return _examine_records(archive)


def _other_tools(file: IO[bytes]) -> str:
    """What it is if it is safetensors: eight bytes with the length of a header in JSON, and the header."""
    file.seek(8)
    if not file.read(2).startswith(b'{"'):
        return ""
    return "is a file of safetensors: weights alone, without checksums, which doctor does not check"


def _examine_records(archive: zipfile.ZipFile) -> Archive:
    entries = archive.infolist()
    findings = [*_odd_names(entries), *_without_checksums_(entries)]
    sizes: dict[str, int] = {}
    for entry in entries:
        fault = _fault_of(archive, entry)
        if fault:
            findings.append(Finding("error", f"record {entry.filename!r}: {fault}"))
        else:
            sizes[entry.filename] = entry.file_size
    roots = [entry.filename[: -len("data.pkl")] for entry in entries if entry.filename.count("/") == 1
             and entry.filename.endswith("/data.pkl")]  # fmt: skip
    if len(roots) != 1:
        findings.append(Finding("error", f"must hold one data.pkl, and holds {len(roots)}"))
        return Archive(tuple(findings), None, len(sizes), sum(sizes.values()))
    pickled = None
    if (name := f"{roots[0]}data.pkl") in sizes:
        try:
            pickled = read_pickle(archive.read(name))
            findings += _missing_storages(pickled, sizes, roots[0])
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            findings.append(Finding("error", f"{name}: {error}"))
    return Archive(tuple(findings), pickled, len(sizes), sum(sizes.values()))


def _odd_names(entries: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    names = [entry.filename for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        yield Finding("error", f"has two records of one name, {twice[0]!r}: readers may differ in which they take")
    if entries and entries[0].header_offset:
        yield Finding("warning", "something lies before its first record")


def _without_checksums_(entries: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    """Told, and then not looked for, where torch was told to leave them out: it writes 0 in all of their places."""
    if len(entries) > 1 and not any(entry.CRC for entry in entries):
        for entry in entries:
            entry.CRC = None  # type: ignore[assignment] # what makes zipfile pass over it
        yield Finding(
            "warning", "has no checksums (torch.serialization.set_crc32_options): damage to tensors goes unseen"
        )


def _fault_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    """What is wrong with a record; nothing if its checksum is right."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return "is compressed, which torch.save never does"
    if entry.file_size != entry.compress_size:
        return f"has two sizes, {entry.file_size:,} and {entry.compress_size:,} bytes"
    if entry.filename.endswith("data.pkl") and entry.file_size > _LARGEST_PICKLE:
        return f"has {entry.file_size:,} bytes, more than a pickle of containers and numbers can need"
    try:
        with archive.open(entry) as record:
            while record.read(_CHUNK):
                pass
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        return f"is damaged ({error})" if str(error) else "ends early"
    return ""


def _missing_storages(pickled: Pickled, sizes: dict[str, int], root: str) -> Iterator[Finding]:
    """Storages that the pickle asks for, and that are not there or too short."""
    for identity in pickled.persistent:
        if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
            yield Finding("error", "asks for something that is no storage of torch")
            return
        kind, key, number = identity[1], identity[2], identity[4]
        record = f"{root}data/{key}"
        name = kind.name if isinstance(kind, Global) else kind.what if isinstance(kind, Built) else ""
        width = _BYTES.get(name.rpartition(".")[2].removesuffix("Storage"), 0)
        if record not in sizes:
            yield Finding("error", f"record {record!r} of a tensor is missing or damaged")
        elif isinstance(number, int) and sizes[record] < number * width:
            yield Finding(
                "error", f"record {record!r} has {sizes[record]:,} bytes, and its tensor needs {number * width:,}"
            )
