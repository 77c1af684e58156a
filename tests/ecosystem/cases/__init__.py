"""Models by environment; ``make test-ecosystem`` names the one that it is in."""

import os
from importlib import import_module

GROUPS = {
    "networks": ("demos", "networks", "lightly_cases"),
    "forecasting": ("forecasting",),
    "science": ("science",),
    "anomaly": ("anomaly",),
}

CASES = [case for file in GROUPS[os.environ["ECOSYSTEM"]] for case in import_module(f"cases.{file}").CASES]
