"""What was found: blocks, and the parameters before and after them. Values made of names, to keep and to print."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from .tree import tree_of, without_wrappers

EMBEDDING = "embedding"
HEAD = "head"


@dataclass(frozen=True)
class Block:
    """One of the repeated parts of a network.

    Attributes:
        name: Name of its module, without wrappers.
        index: Place in the order of depth, counted from 0 through all stacks and stages.
        type: Name of its class.
        stack: Name of the module that holds it and its siblings; "" if that is the network itself.
        parameters: Names of its parameters, without wrappers. What lies between two blocks, such as the downsampling
            between two stages, belongs to the one that follows.
        is_module: Whether ``name`` is a module; not so for blocks made of parameter names.
    """

    name: str
    index: int
    type: str
    stack: str
    parameters: tuple[str, ...]
    is_module: bool = True


@dataclass(frozen=True)
class Structure:
    """Where the blocks of a network are, with every parameter in exactly one place.

    A value of names: it holds no tensor and no module, pickles, and outlives wrapping, sharding and compiling.

    Attributes:
        blocks: In order of depth.
        embedding: Names of the parameters before the first block.
        head: Names of the parameters after the last block.
        sizes: Number of elements of each parameter, by name without wrappers.
        raw_names: For each name without wrappers, the one that ``named_parameters`` gave.
        aliases: For each further name of a tied parameter, the one it is kept under.

    Example:
        >>> from lightning_llmopt.structure import find_blocks
        >>> layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
        >>> net = nn.Sequential(nn.Embedding(5, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 5))
        >>> print(find_blocks(net))
           name        type                     parameters  share
        0  embedding                                    40   3.1%
        1  1.layers.0  TransformerEncoderLayer         600  46.7%
        2  1.layers.1  TransformerEncoderLayer         600  46.7%
        3  head                                         45   3.5%
    """

    blocks: tuple[Block, ...]
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    sizes: dict[str, int] = field(repr=False, default_factory=dict, hash=False)
    raw_names: dict[str, str] = field(repr=False, default_factory=dict, hash=False)
    aliases: dict[str, str] = field(repr=False, default_factory=dict, hash=False)

    def depth_of(self, parameter: str) -> int:
        """How deep a parameter lies: 0 in the embedding, ``i + 1`` in block ``i``, ``len(blocks) + 1`` in the head.

        Args:
            parameter: Its name, with or without wrappers; each name of a tied one will do.

        Raises:
            ValueError: If the network had no parameter of that name.
        """
        return self._depths[self._known(parameter)]

    def block_of(self, parameter: str) -> str:
        """Where a parameter lies: the name of its block, ``"embedding"`` or ``"head"``.

        Raises:
            ValueError: If the network had no parameter of that name.
        """
        return [EMBEDDING, *(block.name for block in self.blocks), HEAD][self.depth_of(parameter)]

    def modules(self, model: nn.Module) -> Iterator[nn.Module]:
        """The modules that are the blocks, without their wrappers, in order of depth.

        Args:
            model: The network, or one of the same build; wrapped or not.

        Raises:
            ValueError: If ``model`` has no module of a block's name, or the block is no module.
        """
        modules = {node.name: node.module for node in tree_of(model).walk()}
        for block in self.blocks:
            if not block.is_module:
                raise ValueError(f"Block {block.name!r} is a set of parameters, not a module.")
            if block.name not in modules:
                raise ValueError(f"Block {block.name!r} is no module of this {type(model).__name__}.")
            yield modules[block.name]

    def __str__(self) -> str:
        rows = [("", "name", "type", "parameters", "share"), (0, EMBEDDING, "", *self._share(self.embedding))]
        rows += [(block.index + 1, block.name, block.type, *self._share(block.parameters)) for block in self.blocks]
        rows.append((len(self.blocks) + 1, HEAD, "", *self._share(self.head)))
        columns = list(zip(*[[str(cell) for cell in row] for row in rows], strict=True))
        padded = [_padded(column, right=place in (0, 3, 4)) for place, column in enumerate(columns)]
        return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))

    @cached_property
    def _depths(self) -> dict[str, int]:
        places = [self.embedding, *(block.parameters for block in self.blocks), self.head]
        return {name: depth for depth, names in enumerate(places) for name in names}

    @cached_property
    def _clean(self) -> dict[str, str]:
        return {raw: name for name, raw in self.raw_names.items()} | self.aliases

    def _known(self, parameter: str) -> str:
        for name in (parameter, without_wrappers(parameter)):
            for known in (name, self._clean.get(name, name)):
                if known in self._depths:
                    return known
        raise ValueError(f"The network has no parameter {parameter!r}.")

    def _share(self, names: tuple[str, ...]) -> tuple[str, str]:
        size, whole = sum(self.sizes[name] for name in names), sum(self.sizes.values())
        return f"{size:,}", f"{size / max(whole, 1):.1%}"


def _padded(cells: tuple[str, ...], *, right: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
