"""YAML for whole runs: Lightning's command line, with refusals that a reader can act on."""

from .cli import LLMOptCLI as LLMOptCLI
