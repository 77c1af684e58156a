"""``llmopt groups``: the parameter groups that our rules make of a model."""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..optim import DecaySplit, LayerDecay, Rule, combined, regroup_, traits_of
from ..optim.table import COLUMNS, Row, as_text, rows
from ..planning.tables import Grid
from ..structure import Structure, find_blocks
from . import YES
from ._importing import imported, made, settings_of
from ._parsing import Parser, number
from ._printing import show

ABOUT = """
The parameter groups that layer-wise rates and the weight-decay split make of a
model: how many parameters each has, its rate and decay, and where it lies.

MODEL is an import path of a class, of a function that returns a module, or of
a module: package.module:Name or file.py:Name. It is built on the meta device
if it can be, so a large one costs nothing. Classes of transformers get a
configuration: transformers:GPT2LMHeadModel --init n_layer=6.
"""
MORE = """
examples:
  llmopt groups train.py:Model --layer-decay 0.9 --no-decay norm,bias --lr 3e-4
  llmopt groups timm:create_model --init model_name=vit_base_patch16_224
      --layer-decay 0.75
  llmopt groups transformers:GPT2LMHeadModel --no-decay norm,bias,embedding

exit status:
  0  the groups were shown
  2  an argument makes no sense, the model could not be built, or it has no
     blocks to give layer-wise rates
"""
_DECAY_SPLITS = {frozenset({"norm", "bias"}): False, frozenset({"norm", "bias", "embedding"}): True}


def run(words: Sequence[str]) -> int:
    """Show the groups."""
    options = _parser().parse_args(words)
    split = _decay_split(options.no_decay)
    model, where = _built(options.model, settings_of(options.init, name="--init"))
    found = list(_regrouped(model, split, options))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{type(model).__name__}: {size:,} parameters, built on {where}.")
    for optimizer, lines in found:
        print(f"\n{type(optimizer).__name__}")
        grid = Grid("", COLUMNS, COLUMNS, tuple(line.cells() for line in lines))
        show(grid, plain=as_text(lines), left=("group", "blocks"))
    return YES


def _parser() -> argparse.ArgumentParser:
    parser = Parser("groups", takes="MODEL [options]", about=ABOUT, more=MORE)
    parser.add_argument("model", metavar="MODEL", help="import path: package.module:Name or file.py:Name")
    parser.add_argument(
        "--init", action="append", default=[], metavar="KEY=VALUE", help="an argument of MODEL; may be given again"
    )
    parser.add_argument(
        "--layer-decay", type=number(most=1), metavar="RATIO", help="rate of a layer over that of the one above it"
    )
    parser.add_argument(
        "--blocks",
        action="append",
        metavar="GLOB",
        help="names of the blocks, if they are not found; may be given again",
    )
    parser.add_argument(
        "--no-decay", metavar="KINDS", help="what goes without weight decay: norm,bias or norm,bias,embedding"
    )
    parser.add_argument(
        "--lr", type=number(), metavar="RATE", help="base rate of AdamW (1e-3; of a LightningModule its own optimizer)"
    )
    parser.add_argument(
        "--weight-decay",
        type=number(or_equal=True),
        metavar="DECAY",
        help="of AdamW (0.1); with --lr or a plain module",
    )
    return parser


def _decay_split(kinds: str | None) -> DecaySplit | None:
    """What goes without weight decay; norms and biases go together."""
    if kinds is None:
        return None
    wanted = frozenset(kinds.replace(" ", "").split(","))
    if wanted not in _DECAY_SPLITS:
        raise ValueError(f"--no-decay must be norm,bias or norm,bias,embedding, got {kinds!r}.")
    return DecaySplit(embeddings=_DECAY_SPLITS[wanted])


def _built(path: str, given: dict[str, Any]) -> tuple[nn.Module, str]:
    """The model, and where its parameters are."""
    target = imported(path, name="MODEL")
    try:
        with torch.device("meta"):
            model, where = made(target, given, path=path, name="MODEL"), "the meta device"
    except ValueError:  # some look at their numbers while they are built
        model, where = made(target, given, path=path, name="MODEL"), "the CPU: it cannot be built on the meta device"
    if not isinstance(model, nn.Module):
        raise ValueError(f"MODEL must be a torch.nn.Module or make one, got {type(model).__name__} from {path!r}.")
    return model, where


def _regrouped(
    model: nn.Module, split: DecaySplit | None, options: argparse.Namespace
) -> Iterator[tuple[Optimizer, list[Row]]]:
    """Every optimizer with its groups as they will be."""
    traits = traits_of(model)
    structure = _structure(model, options)
    rules: list[Rule] = [] if split is None else [split]
    if options.layer_decay is not None and structure is not None:
        rules.append(LayerDecay(options.layer_decay, structure))
    parameters: list[Tensor] = [trait.parameter for trait in traits]
    settings = dict(zip(parameters, combined(rules, traits), strict=True))
    sizes: dict[Tensor, int] = {trait.parameter: math.prod(trait.shape) for trait in traits}
    depths: dict[Tensor, int] = {}
    if structure is not None:
        depths = {trait.parameter: structure.depth_of(trait.name) for trait in traits}
    for optimizer in _optimizers(model, options):
        regroup_(optimizer, settings)
        yield optimizer, rows(optimizer, sizes, depths, 0 if structure is None else len(structure.blocks))


def _structure(model: nn.Module, options: argparse.Namespace) -> Structure | None:
    try:
        return find_blocks(model, blocks=options.blocks)
    except ValueError as error:
        if options.blocks:
            raise ValueError(f"--blocks: {error}") from error
        if options.layer_decay is not None:
            raise ValueError(f"--layer-decay needs blocks, or --blocks GLOB. {error}") from error
        return None


def _optimizers(model: nn.Module, options: argparse.Namespace) -> list[Optimizer]:
    """Those of a LightningModule, if it has any and no rate is given; else AdamW."""
    own = getattr(model, "configure_optimizers", None)
    if options.lr is None and options.weight_decay is None and own is not None:
        from ..callbacks._configured import optimizers_in

        try:
            found = optimizers_in(own())
        except Exception as error:
            raise ValueError(
                f"configure_optimizers of {type(model).__name__} needs a Trainer, or fails: {error}. "
                "Give --lr, and AdamW stands in for its optimizer."
            ) from error
        if found:
            return list(found)
    rate = 1e-3 if options.lr is None else options.lr
    decay = 0.1 if options.weight_decay is None else options.weight_decay
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"MODEL must have parameters to train, got none in {type(model).__name__}.")
    return [torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)]
