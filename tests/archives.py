"""Builds the wheel and the sdist of a copy of this repository, and says what is in them."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent

# Not there today, or never to be shipped: a copy that has them shows what a build does with them.
RECIPE = "lightning_llmopt/recipes/data/of_a_test.json"
LITTER = ["runs/version_0/metrics.csv", ".venv/pyvenv.cfg", "lightning_llmopt/__pycache__/x.cpython-311.pyc"]

_BUILD = "import sys, hatchling.build as b; print(b.build_sdist(sys.argv[1])); print(b.build_wheel(sys.argv[1]))"


def copy_of_the_repository(folder):
    """What the working tree holds, whether git knows it or not, less what git ignores; with litter, and with data."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    for name in [RECIPE, *LITTER]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def build_offline(source, out):
    """Wheel and sdist by the build backend alone: no front end, no environment of its own, no network."""
    subprocess.run([sys.executable, "-c", _BUILD, str(out)], cwd=source, capture_output=True, text=True, check=True)
    return archives_in(out)


def archives_in(folder):
    """The wheel and the sdist in a folder that has one of each."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def wheel_names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def sdist_names(sdist):
    """Names below the folder that holds everything."""
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(member.name) for member in archive.getmembers() if member.isfile()]
    assert len({name.parts[0] for name in names}) == 1
    return {str(PurePosixPath(*name.parts[1:])) for name in names}


def metadata(wheel):
    """The wheel's METADATA: a message with headers."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def entry_points(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        return archive.read(name).decode()
