"""Weight decay for matrices alone."""

from torch import nn
from typing_extensions import override

from .._lightning import Trainer
from ..optim import DecaySplit, Rule
from ._regroups import Regroups


class WeightDecaySplit(Regroups):
    """Takes weight decay off norms, biases and whatever else has fewer than two dimensions; off embeddings on request.

    Told by the module's type (any of torch's norms, and any class called ``...Norm``) and by the number of dimensions
    of the whole parameter, also where a strategy has flattened or sharded it; never by parameters' names. The rest
    keeps the optimizer's ``weight_decay``, and what ``ParamGroups`` sets wins. Where that is 0 there is nothing to take
    off, and the parameters stay in one group.

    Prints the groups at fit start, and logs ``lr/<optimizer>/decay`` and ``lr/<optimizer>/no_decay``.

    Args:
        embeddings: Whether ``nn.Embedding`` and ``nn.EmbeddingBag`` go without decay too.
        on_change: What to do if a checkpoint's groups or settings are others: ``"error"``, or ``"adopt"`` the new ones.
        show: Whether to print the table.

    Raises:
        ValueError: If an argument is out of range.
        MisconfigurationException: At fit start, if the module returns no optimizer, or FSDP flattens parameters; on
            resume, if the checkpoint's groups are others.

    Source:
        Loshchilov & Hutter 2019 (AdamW), https://arxiv.org/abs/1711.05101; the split of GPT-3, Brown et al. 2020,
        https://arxiv.org/abs/2005.14165, as nanoGPT has it.

    Example:
        >>> from lightning_llmopt.callbacks import WeightDecaySplit
        >>> callback = WeightDecaySplit(embeddings=True)
    """

    STRENGTH = 1

    def __init__(self, *, embeddings: bool = False, on_change: str = "error", show: bool = True) -> None:
        self.split = DecaySplit(embeddings)
        super().__init__(on_change=on_change, show=show)

    @override
    def rule(self, trainer: Trainer, model: nn.Module) -> Rule:
        return self.split
