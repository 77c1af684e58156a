"""These run where `make test-ecosystem` has installed the packages, and are not looked at anywhere else.

It says which environment it is in by `ECOSYSTEM`, and by `RESULTS` into which file the rows of the table go.
"""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("checks", "shipped")

GROUP = os.environ.get("ECOSYSTEM")

collect_ignore_glob = ["cases/*.py", *([] if GROUP else ["*.py"])]
collect_ignore = [
    "checks.py", "entries.py", "given.py", "shipped.py", "table.py", "zoo.py", "zoo_transformers.py"
]  # fmt: skip  # no doctests in them
if GROUP != "networks":
    collect_ignore += ["test_networks.py", "test_timm.py"]

failures: dict[str, list[str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember why a case does not work, whether that was known or not."""
    report = yield
    case = getattr(item, "callspec", None) and item.callspec.params.get("case")
    if case and report.when == "call" and call.excinfo is not None:
        reason = case.fails or str(call.excinfo.value).strip().splitlines()[0]
        failures.setdefault(str(case), []).append(reason)
    return report


def pytest_sessionfinish(session):
    if GROUP and os.environ.get("RESULTS"):
        from cases import of_group
        from table import keep

        reasons = {case: list(dict.fromkeys(why)) for case, why in failures.items()}
        keep(Path(os.environ["RESULTS"]), of_group(GROUP), reasons)


def _declare_operators():
    """Let torchvision be imported where its kernels cannot be loaded.

    Its wheel on PyPI has CUDA kernels inside, which do not load beside a CPU build of torch. Its Python part, which is
    all that timm, segmentation-models-pytorch and torchmetrics need, asks only that two operators have been declared.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


if GROUP and find_spec("torchvision"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _library = _declare_operators()  # operators go when the library does
