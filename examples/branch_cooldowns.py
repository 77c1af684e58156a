"""Three finished models from one trunk: a constant rate, and a cooldown wherever a model is wanted.

Separate cosine runs would train every model from the start; --alone does that too, for comparison.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from corpus import RandomCrops, ScoredWindows, read_corpus
from gpt import GPT
from lightning.pytorch import Callback, Trainer, seed_everything
from rich.console import Console
from rich.table import Table
from train_gpt import keep_quiet

from lightning_llmopt.callbacks import Branches, GradientNormClip, LRSchedule, branch_many
from lightning_llmopt.schedules import cosine


def main() -> int:
    """Run the example; returns the exit status."""
    keep_quiet()
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--totals", type=int, nargs="+", default=[100, 200, 300], help="default: 100 200 300 updates")
    parser.add_argument("--batch", type=int, default=8, help="crops in an update (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("runs/branches"), help="where the trunk's checkpoints go")
    parser.add_argument("--alone", action="store_true", help="train every model from the start too, by cosine")
    parser.add_argument("--quick", action="store_true", help="measure on a tenth of the held-out text")
    options = parser.parse_args()
    corpus = read_corpus(None, least_heldout=GPT.CONTEXT)
    windows = ScoredWindows(corpus, context=GPT.CONTEXT)
    if options.quick:
        del windows.batches[len(windows) // 10 + 1 :]

    def fit(callbacks: list[Callback], ckpt_path: Path | None) -> float:
        crops = RandomCrops(
            corpus.train, context=GPT.CONTEXT, batch=options.batch, updates=10 * max(options.totals), seed=0
        )
        return train(crops, windows, callbacks, ckpt_path)

    try:
        branches = branch_many(
            fit, totals=options.totals, folder=options.out, warmup=max(1, min(options.totals) // 20), decay=0.2
        )
    except ValueError as error:
        parser.error(str(error))
    alone = {}
    if options.alone:
        for total in options.totals:
            alone[total] = fit([LRSchedule(cosine(warmup="5%", floor=0.1), total=total)], None)
    show(branches, alone)
    return 0


def train(crops: RandomCrops, windows: ScoredWindows, callbacks: list[Callback], ckpt_path: Path | None) -> float:
    """Train a fresh model until a callback says stop; bits per byte on the held-out text."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_epochs=-1,
        callbacks=[*callbacks, GradientNormClip(max_norm=1.0)],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model = GPT()
    trainer.fit(model, crops, ckpt_path=ckpt_path, weights_only=True)
    return trainer.validate(model, windows, verbose=False)[0]["val/bits_per_byte"]


def show(branches: Branches, alone: dict[int, float]) -> None:
    """Print what each model costs and how good it is."""
    table = Table(title="Finished models from one trunk")
    for name in ("run", "leaves the trunk at", "cooldown", "bits per byte", *(["alone, by cosine"] if alone else [])):
        table.add_column(name, justify="right")
    for run in branches.cost.runs:
        own = [f"{alone[run.total]:.3f}"] if alone else []
        table.add_row(str(run.total), str(run.trunk), str(run.decay), f"{branches.results[run.total]:.3f}", *own)
    console = Console()
    console.print(table)
    cost = branches.cost
    console.print(
        f"{cost.branched} updates in all; separate runs take {cost.separate}. Saved: {cost.saved:.1%}.", highlight=False
    )


if __name__ == "__main__":
    sys.exit(main())
