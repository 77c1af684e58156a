"""On what to run: presets of Trainer arguments."""

from .hardware import bf16_is_fast as bf16_is_fast
from .presets import preset as preset
