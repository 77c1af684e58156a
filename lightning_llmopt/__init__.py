"""Everything around the optimizer in a large-model run, as Lightning callbacks and strategy presets.

Rooms, each imported by name:

- ``lightning_llmopt.schedules``: what the rate should be (plain functions of the update number).
- ``lightning_llmopt.preview``: a schedule before the run, as a picture, in a terminal, as a table.
- ``lightning_llmopt.planning``: does it fit (arithmetic before the run), also as ``llmopt plan``.
- ``lightning_llmopt.gradients``: how big the gradients are (tensors in, tensors out).
- ``lightning_llmopt.callbacks``: when to act and where to log (the Lightning glue).
- ``lightning_llmopt.recipes``: what others used, with sources (published runs by name).
- ``lightning_llmopt.reporting``: the curves of a run on one page (from its log).
- ``lightning_llmopt.strategies``: on what to run (presets of Trainer arguments).
- ``lightning_llmopt.commands``: the same from a terminal, as ``llmopt`` (``llmopt --help``).
- ``lightning_llmopt.configs``: whole runs in YAML (LightningCLI, with refusals in a sentence).
- ``lightning_llmopt.checkpoints``: what a checkpoint holds and whether it is whole, without unpickling.
"""

__version__ = "0.1.0"
