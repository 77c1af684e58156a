"""Train a small GPT on seven plays of Shakespeare: two minutes on two CPU cores, no download.

What is particular to lightning_llmopt stands in build_trainer; the model in gpt.py knows nothing of it.
Ctrl-C ends the run and says how to go on with it.
"""

import logging
import os
import shlex
import sys
import warnings
from argparse import Namespace
from pathlib import Path

from corpus import Corpus, RandomCrops, ScoredWindows
from ctrl_c import StopAfterUpdate
from gpt import GPT
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from options import read_options
from report import applied_rates, draw_schedule, show_sample, show_table
from rich.console import Console
from run_folder import RunFolder

import lightning_llmopt
from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule, RunSummary
from lightning_llmopt.reporting import report
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import preset

SCHEDULE = wsd(warmup="2%", decay="20%", shape="sqrt")
PRECISIONS = {
    "bf16": "bf16 (matrix products in bfloat16, weights in single precision)",
    "fp32": "fp32 (everything in single precision)",
}
INTERRUPTED = 130  # exit status of a program that Ctrl-C ended, by the shells' convention


def main() -> int:
    """Run the demo; returns the exit status."""
    keep_quiet()
    hear_our_callbacks()
    options, corpus, folder = read_options(__doc__, least_heldout=GPT.CONTEXT)
    console = Console()
    try:
        run(options, corpus, folder, console)
    except (KeyboardInterrupt, SystemExit):  # inside fit and validate, Lightning turns the first into the second
        console.print(how_to_go_on(folder), highlight=False, soft_wrap=True)
        return INTERRUPTED
    return 0


def run(options: Namespace, corpus: Corpus, folder: RunFolder, console: Console) -> None:
    """Train, then show what came of it."""
    seed_everything(options.seed, verbose=False)
    model = GPT()
    introduce(console, corpus, model, options.precision)
    trainer = build_trainer(options, folder)
    windows = ScoredWindows(corpus, context=GPT.CONTEXT)
    crops = RandomCrops(
        corpus.train, context=GPT.CONTEXT, batch=options.batch, updates=options.updates, seed=options.seed
    )

    trainer.fit(model, crops, windows, ckpt_path=folder.checkpoint if options.resume else None, weights_only=True)
    if folder.updates_done() < trainer.global_step:
        trainer.save_checkpoint(folder.checkpoint, weights_only=False)  # weights and all else
    console.print(f"Trained to update {trainer.global_step}. Measuring ...")

    measured = trainer.validate(model, windows, verbose=False)[0]
    show_table(console, corpus, model=measured["val/bits_per_byte"])
    show_sample(console, model.eval().write(corpus.heldout[: GPT.CONTEXT], length=400))
    draw_schedule(
        SCHEDULE.resolve(total_steps=options.updates),
        peak_rate=model.peak_rate,
        applied=applied_rates(folder.tensorboard),
        to=folder.picture,
    )
    report(folder.root, to=folder.page)
    point_out(console, folder)


def build_trainer(options: Namespace, folder: RunFolder) -> Trainer:
    """Everything around the model: schedule, clipping, gradient norms, precision, checkpoints."""
    return Trainer(
        max_steps=options.updates,
        max_epochs=1,  # the loader has as many batches as the run has updates
        callbacks=[
            LRSchedule(SCHEDULE),
            GradientNormClip(max_norm=1.0),
            GradientNormMonitor(per_layer=True),
            RunSummary(),
            StopAfterUpdate(),
            ModelCheckpoint(
                folder.root,
                filename=folder.checkpoint.stem,
                every_n_train_steps=max(1, options.updates // 10),
                save_on_exception=True,
                enable_version_counter=False,  # one file, always the newest
            ),
        ],
        **preset(options.precision),
        logger=TensorBoardLogger(
            folder.root,
            name=folder.tensorboard.name,
            version="",
            default_hp_metric=False,
            purge_step=folder.updates_done() if options.resume else None,  # what comes later is logged again
        ),
        log_every_n_steps=max(1, min(10, options.updates // 10)),
        val_check_interval=options.updates // 4 + 1,  # three times on the way; the end is measured by itself
        num_sanity_val_steps=0,
        enable_model_summary=False,
        devices=1,
    )


def introduce(console: Console, corpus: Corpus, model: GPT, precision: str) -> None:
    """Say what is about to run."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(
        f"Text: {corpus.files} files, {len(corpus.train):,} bytes to train on, {len(corpus.heldout):,} held out.\n"
        f"Model: GPT on bytes, {parameters / 1e6:.2f} million parameters, looks back {GPT.CONTEXT} bytes.\n"
        f"Precision: {PRECISIONS[precision]}.",
        highlight=False,
    )


def point_out(console: Console, folder: RunFolder) -> None:
    """Say where everything is."""
    tensorboard = Path(sys.executable).with_name("tensorboard")
    console.print(
        f"All curves on one page:              {folder.page}\n"
        f"Learning rate, planned and applied:  {folder.picture}\n"
        f"Checkpoint:                          {folder.checkpoint}\n"
        f"TensorBoard events:                  {folder.tensorboard}\n"
        f"To open TensorBoard:                 {command(tensorboard, '--logdir', folder.tensorboard)}",
        highlight=False,
        soft_wrap=True,
    )


def how_to_go_on(folder: RunFolder) -> str:
    """Where the run stopped, and what to type to go on with it."""
    if not folder.checkpoint.is_file():
        return "Stopped before there was anything to keep."
    resume = command(Path(sys.executable), Path(__file__), "--resume", "--out", folder.root)
    return f"Stopped after update {folder.updates_done()}. To go on:\n  {resume}"


def command(*words: str | Path) -> str:
    """A shell command; paths below the current folder are written short."""
    here = Path.cwd()
    shown = [
        os.path.relpath(word) if isinstance(word, Path) and word.absolute().is_relative_to(here) else str(word)
        for word in words
    ]
    return shlex.join(shown)


def keep_quiet() -> None:
    """Silence what Lightning says about choices that are made on purpose here."""
    # Tips about other products and a list of absent accelerators, on a channel that carries nothing else.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    # Lightning's own use of a torch function that will go away.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    # The folder of the run holds its settings, and on --resume everything it left.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def hear_our_callbacks() -> None:
    """Let through what lightning_llmopt says on that channel: RunSummary keeps as quiet as Lightning is told to be."""
    ours = Path(lightning_llmopt.__file__).parent
    channel = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    channel.setLevel(logging.INFO)
    channel.addFilter(lambda record: ours in Path(record.pathname).parents)


if __name__ == "__main__":
    sys.exit(main())
