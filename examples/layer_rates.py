"""Who learns how fast: a small GPT whose layers, norms and output train at rates and decays of their own.

--decay 1 --plain trains the same GPT with one rate for all, for comparison.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch
from corpus import RandomCrops, ScoredWindows, read_corpus
from gpt import GPT
from lightning.pytorch import Trainer, seed_everything
from train_gpt import hear_our_callbacks, keep_quiet

from lightning_llmopt.callbacks import GradientNormClip, LayerwiseLRDecay, LRSchedule, ParamGroups, WeightDecaySplit
from lightning_llmopt.schedules import wsd


def main() -> None:
    """Run the example."""
    keep_quiet()
    hear_our_callbacks()
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--decay", type=float, default=0.9, help="rate of a layer over that of the next (default: 0.9)")
    parser.add_argument("--updates", type=int, default=200, help="default: 200")
    parser.add_argument("--plain", action="store_true", help="leave the groups as the module makes them")
    parser.add_argument("--quick", action="store_true", help="measure on a tenth of the held-out text")
    options = parser.parse_args()
    try:
        groups = [
            LayerwiseLRDecay(options.decay),
            WeightDecaySplit(),
            ParamGroups({torch.nn.Embedding: {"betas": (0.9, 0.99), "name": "slow_moments"}}),
        ]
    except ValueError as error:
        parser.error(str(error))
    corpus = read_corpus(None, least_heldout=GPT.CONTEXT)
    windows = ScoredWindows(corpus, context=GPT.CONTEXT)
    if options.quick:
        del windows.batches[len(windows) // 10 + 1 :]
    seed_everything(0, verbose=False)
    schedule = LRSchedule(wsd(warmup="5%", decay="20%"))
    trainer = Trainer(
        max_steps=options.updates,
        callbacks=[*([] if options.plain else groups), schedule, GradientNormClip(1.0)],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model = GPT()
    trainer.fit(model, RandomCrops(corpus.train, context=GPT.CONTEXT, batch=8, updates=options.updates, seed=0))
    bits = trainer.validate(model, windows, verbose=False)[0]
    print(", ".join(f"{name} {value:.3f}" for name, value in bits.items()))


if __name__ == "__main__":
    main()
