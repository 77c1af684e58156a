"""Models by environment; ``make test-ecosystem`` says which one it is in."""

from importlib import import_module

GROUPS = {
    "networks": ("demos", "networks", "lightly_cases", "finetuning"),
    "forecasting": ("forecasting",),
    "science": ("science",),
    "anomaly": ("anomaly",),
}


def of_group(group):
    """All cases of an environment, in the order of the table."""
    return [case for file in GROUPS[group] for case in import_module(f"cases.{file}").CASES]
