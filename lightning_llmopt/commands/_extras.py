"""Which extra a part needs, said where it is missing."""

from importlib import import_module
from types import ModuleType

_EXTRAS = {
    "jsonargparse": "cli",
    "docstring_parser": "cli",
    "rich": "cli",
    "matplotlib": "plot",
    "deepspeed": "deepspeed",
    "yaml": "cli",
}


def needed(package: str, *, by: str) -> ModuleType:
    """The package.

    Args:
        package: Its import name.
        by: What needs it.

    Raises:
        ModuleNotFoundError: If it is not installed, with the command that installs it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ModuleNotFoundError(
            f'{by} needs {package}: pip install "lightning-llmopt[{_EXTRAS[package]}]".', name=package
        ) from error
