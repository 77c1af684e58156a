"""What the names that a pickle would import mean for whoever opens it."""

import re
from collections.abc import Iterable, Iterator

from .diagnosis import Finding

_SAFE = re.compile(
    r"collections\.(OrderedDict|defaultdict|Counter|deque)|_codecs\.encode|copyreg\._reconstructor|"
    r"(builtins|__builtin__)\.(set|frozenset|dict|list|tuple|int|float|bool|str|bytes|bytearray|complex|slice|range|object)|"
    r"datetime\.\w+|(pathlib|pathlib\._local)\.(Pure)?(Posix|Windows)?Path|uuid\.UUID|fractions\.Fraction|decimal\.Decimal|"
    r"torch\.(\w+Storage|Size|device|dtype|Tensor|strided|float\w*|u?int\d+|bool|half|double|bfloat16|complex\d+|long|short)|"
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+|torch\.nn\.parameter\.\w+|torch\.storage\.\w*Storage|"
    r"torch\.serialization\._get_layout|torch\.distributed\.checkpoint\.(metadata|filesystem)\.\w+|"
    r"torch\.distributed\._shard\.sharded_tensor\.metadata\.\w+|torch\.distributed\._shard\.metadata\.\w+|"
    r"numpy\.(_core|core)\.multiarray\.(_reconstruct|scalar)|numpy\.(ndarray|dtype|_core\.numeric\._frombuffer)|"
    r"deepspeed\.(runtime\.fp16\.loss_scaler\.\w+|runtime\.zero\.config\.ZeroStageEnum)|"
    r"deepspeed\.utils\.tensor_fragment\.fragment_address|types\.SimpleNamespace|"
    r"(lightning|pytorch_lightning|lightning_fabric)\.(fabric\.|pytorch\.)?(utilities\.)+(\w+\.)*AttributeDict"
)
_RUNS = re.compile(
    r"(os|posix|nt|posixpath|subprocess|sys|runpy|importlib|imp|pkgutil|shutil|socket|pty|platform|ctypes|webbrowser|code|"
    r"codeop|timeit|pickle|_pickle|cloudpickle|dill|joblib|marshal|types|operator|_operator|functools|asyncio|"
    r"multiprocessing|threading|signal|pdb|bdb|profile|cProfile|trace|pip|ensurepip|venv|urllib|http|ftplib|smtplib|"
    r"requests|tempfile|site|sysconfig|distutils|setuptools|commands|popen2|copyreg)\..*|"
    r"(builtins|__builtin__|__builtins__)\..*|torch\.(hub|utils\.cpp_extension|_inductor|jit|package|load|serialization|"
    r"multiprocessing|storage\._load_from_bytes|_dynamo|fx)(\..*)?|torch\.storage\._load_from_bytes|"
    r"numpy\.(testing|f2py|distutils|load|memmap|fromfile)(\..*)?|a name that is put together while unpickling"
)
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def judge_globals(names: Iterable[str]) -> Iterator[Finding]:
    """What to say of the names; nothing about those that are harmless.

    Args:
        names: Module and name, with a dot between them.

    Example:
        >>> [finding.level for finding in judge_globals(["collections.OrderedDict", "os.system", "mine.Model"])]
        ['error', 'warning']
    """
    rest = [name for name in names if not _SAFE.fullmatch(name)]
    runs = [name for name in rest if _RUNS.fullmatch(name)]
    if runs:
        yield Finding(
            "error",
            f"unpickling it would call {', '.join(runs[:8])}: code, which no checkpoint needs. Do not open it with "
            "weights_only=False; ask where it comes from.",
        )
    others = [name for name in rest if name not in runs]
    if others:
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        yield Finding(
            "warning",
            f"unpickling it would import {', '.join(others[:8])}{more}: weights_only=True refuses it, and without that "
            "it is only as safe as where it comes from.",
        )


def judge_instantiator(hyperparameters: object) -> Iterator[Finding]:
    """A string among the hyperparameters names a function that Lightning calls: which one is asked here."""
    named = hyperparameters.get("_instantiator") if isinstance(hyperparameters, dict) else None
    if named is not None and named not in (
        INSTANTIATOR,
        INSTANTIATOR.replace("lightning.pytorch", "pytorch_lightning"),
    ):
        yield Finding(
            "error",
            f"its hyperparameters let load_from_checkpoint call {str(named)[:100]!r} (_instantiator): LightningCLI "
            f"writes {INSTANTIATOR!r}. Ask where the file comes from.",
        )
