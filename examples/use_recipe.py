"""A published recipe on a module of one's own: a small GPT trained with the settings of a large one, by name.

Prints the recipe with its sources and what was changed for this run, then trains. The module's own optimizer is
replaced; no line of it is edited. The peak rate stays as published: a batch as small as this example's is too far away
for any rule. --list prints all recipes and trains nothing.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from corpus import RandomCrops, ScoredWindows, read_corpus
from gpt import GPT
from lightning.pytorch import Trainer, seed_everything
from train_gpt import hear_our_callbacks, keep_quiet

from lightning_llmopt.recipes import UseRecipe, recipe, recipes

BATCH = 8  # crops in an update


def main() -> int:
    """Run the example; returns the exit status."""
    keep_quiet()
    hear_our_callbacks()
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="gpt3-125m", help="its name (default: gpt3-125m)")
    parser.add_argument("--list", action="store_true", help="print all recipes and stop")
    parser.add_argument("--updates", type=int, default=200, help="default: 200")
    parser.add_argument("--quick", action="store_true", help="measure on a tenth of the held-out text")
    options = parser.parse_args()
    if options.list:
        print(recipes())
        return 0
    try:
        chosen = recipe(options.recipe)
        if "total" in chosen:  # lengths as published become parts of this run
            batch = BATCH * GPT.CONTEXT
            chosen = chosen.rescaled(batch=batch, total=options.updates * batch, rule="keep")
    except ValueError as error:
        parser.error(str(error))
    print(chosen)
    corpus = read_corpus(None, least_heldout=GPT.CONTEXT)
    windows = ScoredWindows(corpus, context=GPT.CONTEXT)
    if options.quick:
        del windows.batches[len(windows) // 10 + 1 :]
    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_steps=options.updates,
        callbacks=[UseRecipe(chosen)],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model = GPT()
    trainer.fit(model, RandomCrops(corpus.train, context=GPT.CONTEXT, batch=BATCH, updates=options.updates, seed=0))
    bits = trainer.validate(model, windows, verbose=False)[0]
    print(", ".join(f"{name} {value:.3f}" for name, value in bits.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
