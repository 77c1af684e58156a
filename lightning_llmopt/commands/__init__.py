"""The subcommands of ``llmopt``, one a file; its ``run(words)`` reads the words and returns the exit status.

A new one is a file here and a line in ``COMMANDS``: the door, the help and the tests find it there.
"""

COMMANDS = {
    "preview": "draw a learning-rate schedule before the run",
    "groups": "show the parameter groups that our rules make of a model",
    "plan": "say before the run whether it fits, and what to change if not",
    "find-lr": "test learning rates, and suggest one",
    "recipes": "what others trained with, every value with its source",
    "init": "write a commented YAML and a script that runs",
    "doctor": "say what a checkpoint or a run's folder holds, and what is broken",
    "report": "write the log of a run as one HTML page",
    "selftest": "compare gradient norms and weights under every strategy",
}
"""Names and what they do, in the order of the help; the module is called by the name with ``_`` for ``-``."""

YES, NO, BAD_INPUT = 0, 1, 2
