"""The one file that names the Lightning distribution, and the one place for what it does not make public.

Checked against lightning 2.6.6. ``tests/test__lightning.py`` fails when a private name used here moves.
"""

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.exceptions import MisconfigurationException as MisconfigurationException
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.fabric.utilities.seed import reset_seed as reset_seed
from lightning.pytorch import Callback as Callback
from lightning.pytorch import LightningDataModule as LightningDataModule
from lightning.pytorch import LightningModule as LightningModule
from lightning.pytorch import Trainer as Trainer
from lightning.pytorch import seed_everything as seed_everything
from lightning.pytorch.callbacks import Checkpoint as Checkpoint
from lightning.pytorch.callbacks import GradientAccumulationScheduler as GradientAccumulationScheduler
from lightning.pytorch.callbacks import ModelSummary as ModelSummary
from lightning.pytorch.callbacks import ProgressBar as ProgressBar
from lightning.pytorch.callbacks import Timer as Timer
from lightning.pytorch.loggers import Logger as Logger
from lightning.pytorch.loggers import TensorBoardLogger as TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger as DummyLogger
from lightning.pytorch.plugins.precision import FSDPPrecision as FSDPPrecision
from lightning.pytorch.plugins.precision import HalfPrecision as HalfPrecision
from lightning.pytorch.plugins.precision import MixedPrecision as MixedPrecision
from lightning.pytorch.plugins.precision import Precision as Precision
from lightning.pytorch.strategies import DDPStrategy as DDPStrategy
from lightning.pytorch.strategies import DeepSpeedStrategy as DeepSpeedStrategy
from lightning.pytorch.strategies import FSDPStrategy as FSDPStrategy
from lightning.pytorch.strategies import ModelParallelStrategy as ModelParallelStrategy
from lightning.pytorch.strategies import SingleDeviceStrategy as SingleDeviceStrategy
from lightning.pytorch.strategies import Strategy as Strategy
from lightning.pytorch.strategies import StrategyRegistry as StrategyRegistry
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities import rank_zero as _rank_zero
from lightning.pytorch.utilities import rank_zero_info as rank_zero_info
from lightning.pytorch.utilities import rank_zero_only as rank_zero_only
from lightning.pytorch.utilities import rank_zero_warn as rank_zero_warn
from lightning.pytorch.utilities.combined_loader import CombinedLoader as CombinedLoader
from lightning.pytorch.utilities.data import extract_batch_size as extract_batch_size
from lightning.pytorch.utilities.exceptions import _TunerExitException
from lightning.pytorch.utilities.model_helpers import is_overridden as _is_overridden

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser as LightningArgumentParser
    from lightning.pytorch.cli import LightningCLI as LightningCLI

Hook = TypeVar("Hook", bound=Callable[..., None])

TunerExit = _TunerExitException  # raised in a hook it ends a fit in good order
collect_rng_states, set_rng_states = _collect_rng_states, _set_rng_states


def __getattr__(name: str) -> Any:
    """What takes long to import, and few need."""
    if name in ("LightningArgumentParser", "LightningCLI"):
        from lightning.pytorch import cli

        return getattr(cli, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def not_compiled(hook: Hook) -> Hook:
    """Keep a hook out of ``torch.compile(optimizer.step)``: Lightning runs it inside the step, and it counts."""
    return torch.compiler.disable(hook)  # type: ignore[no-untyped-call]


def messages_are_on() -> bool:
    """Whether ``rank_zero_info`` is heard: the level of Lightning's logger of that name is INFO or below."""
    return logging.getLogger(_rank_zero.__name__).isEnabledFor(logging.INFO)


def is_a(one: object, kind: type) -> bool:
    """``isinstance``; the class of that name in ``pytorch_lightning``, the same code under another name, counts too."""
    return _kind_of(one, kind) is not None


def _kind_of(one: object, kind: type) -> type | None:
    """The class, of those that ``one`` descends from, that is ``kind`` in either distribution."""
    twin = kind.__module__.replace("lightning.pytorch", "pytorch_lightning", 1)
    names = {(module, kind.__qualname__) for module in (kind.__module__, twin)}
    return next((base for base in type(one).__mro__ if (base.__module__, base.__qualname__) in names), None)


def is_overridden(hook: str, module: LightningModule) -> bool:
    """Whether ``module`` has a ``hook`` of its own, in the eyes of Lightning's loops."""
    return _is_overridden(hook, module, parent=_kind_of(module, LightningModule))


def logger_step(trainer: Trainer) -> int:
    """Where ``self.log`` puts the coming update on the x axis of every logger: its number, from 0."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def is_logging_step(trainer: Trainer, every_n_steps: int | None = None) -> bool:
    """Whether the coming update is one of every ``every_n_steps``; by default the Trainer's own rhythm.

    The same rule as ``self.log``: with 50 it is updates 49, 99, ... 0 means never.
    """
    every = trainer.log_every_n_steps if every_n_steps is None else every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (logger_step(trainer) + 1) % every == 0


def batches_behind(trainer: Trainer) -> int:
    """Batches of the current epoch that a resumed run finds done; 0 at the start of an epoch.

    Where epochs have become shorter than what is done, Lightning plays the current one again.
    """
    fit_loop, progress = trainer.fit_loop, trainer.fit_loop.epoch_loop.batch_progress
    done = progress.current.ready
    if fit_loop.restarted_mid_epoch and progress.is_last_batch:  # saved by the validation at an epoch's end
        return 0 if fit_loop.epoch_loop.restarted_on_train_batch_end else int(trainer.num_training_batches)
    return done if fit_loop.restarted_mid_epoch and done < trainer.num_training_batches else 0


def batch_is_done(trainer: Trainer) -> bool:
    """Whether the batch that was begun last has been trained on; False while that is under way, or has failed."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return progress.processed >= progress.ready


def loss_scaler(trainer: Trainer) -> Any | None:
    """The fp16 ``GradScaler`` in use, if there is one."""
    return getattr(trainer.precision_plugin, "scaler", None)


def training_timer(trainer: Trainer) -> Timer | None:
    """The ``Timer`` that ends the run: ``Trainer(max_time=...)`` or one among the callbacks."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((one for one in callbacks if is_a(one, Timer) and one.time_remaining() is not None), None)


def time_limit(trainer: Trainer) -> int | None:
    """Time after which the run ends, of which what earlier runs took is a part [microseconds]."""
    timer = training_timer(trainer)
    return None if timer is None or timer._duration is None else round(timer._duration * 1e6)


def data_parallel_share(trainer: Trainer) -> Fraction:
    """Ranks with data of their own over all ranks: below 1 where several share a batch, as in tensor parallelism."""
    sampler = trainer.distributed_sampler_kwargs
    return Fraction(sampler["num_replicas"], trainer.world_size) if sampler else Fraction(1)


def trains_without_end(trainer: Trainer) -> bool:
    """Whether the Trainer itself would never stop."""
    return trainer.max_steps == -1 and trainer.max_epochs in (-1, None) and time_limit(trainer) is None


def log_folder(trainer: Trainer) -> str | None:
    """Where this rank's first logger writes; unlike ``trainer.log_dir`` no other rank has to ask too."""
    folder = getattr(trainer.logger, "log_dir", None) or getattr(trainer.logger, "save_dir", None)
    return None if folder is None else str(folder)


def call_module_hook(trainer: Trainer, name: str, *args: Any) -> Any:
    """Run a hook of the module as the loops do: in its place in the log, and profiled."""
    return call._call_lightning_module_hook(trainer, name, *args)


def training_loader(trainer: Trainer) -> CombinedLoader | None:
    """Where the run takes its batches from, when training is about to start; ``None`` if the module does so itself."""
    loop = trainer.fit_loop
    itself = type(loop._data_fetcher).__name__ == "_DataLoaderIterDataFetcher"
    return None if itself else loop._combined_loader


def same_loader_again(loader: CombinedLoader) -> CombinedLoader:
    """A second reader of the same data: the first one's iterators and workers are left alone."""
    again = copy.copy(loader)
    again._iterator, readers = None, []
    for one in loader.flattened:
        reader = one
        if isinstance(one, torch.utils.data.DataLoader):
            reader = copy.copy(one)
            reader.__dict__["_iterator"] = None  # workers that stay are the run's own
        readers.append(reader)
    again._flattened = list(loader.flattened)
    again.flattened = readers
    return again


def set_epoch_of(loader: CombinedLoader, epoch: int) -> None:
    """Tell all samplers which epoch begins, as the fit loop does."""
    for one in loader.flattened:
        _set_sampler_epoch(one, epoch)


def keep_logs_apart(trainer: Trainer) -> None:
    """Let ``self.log`` write into results that nobody looks at; whoever calls this puts the loops' attributes back."""
    loop = trainer.fit_loop.epoch_loop
    loop._results = type(loop._results)(training=True)
    trainer.loggers = [DummyLogger()] if trainer.loggers else []


def train_on_batch(trainer: Trainer, batch: Any, *, batch_idx: int, position: int) -> dict[str, Any] | None:
    """Train on one batch as the training loop does, but for callbacks' and loggers' part in it.

    Args:
        trainer: In the middle of a fit.
        batch: As the loader gave it.
        batch_idx: What ``training_step`` is told.
        position: Of the batch in its accumulation window, from 0; on the last one the optimizer steps.

    Returns:
        What ``on_train_batch_end`` gets to see; ``None`` if the module wants to skip the batch.
    """
    loop, module = trainer.fit_loop.epoch_loop, trainer.lightning_module
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    batch = call._call_strategy_hook(trainer, "batch_to_device", batch, dataloader_idx=0)
    loop.batch_progress.current.ready, loop.batch_progress.is_last_batch = position + 1, False
    trainer._logger_connector.on_batch_start(batch)
    if call_module_hook(trainer, "on_train_batch_start", batch, batch_idx) == -1:
        return None
    call._call_strategy_hook(trainer, "on_train_batch_start", batch, batch_idx)
    kwargs = loop._build_kwargs(OrderedDict(), batch, batch_idx)
    if module.automatic_optimization:
        outputs = loop.automatic_optimization.run(trainer.optimizers[0], batch_idx, kwargs)
    else:
        outputs = loop.manual_optimization.run(kwargs)
    call_module_hook(trainer, "on_train_batch_end", outputs, batch, batch_idx)
    trainer._logger_connector.on_batch_end()
    return outputs


@contextmanager
def as_if_overridden(module: LightningModule, hook: str) -> Iterator[None]:
    """Let Lightning find ``hook`` overridden, where it insists on that, by one that does nothing."""
    if is_overridden(hook, module):
        yield
        return
    module.__dict__[hook] = lambda: None
    try:
        yield
    finally:
        module.__dict__.pop(hook)
