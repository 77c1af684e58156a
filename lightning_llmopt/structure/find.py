"""Blocks found by themselves, named by patterns, or given by a function."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from .blocks import Block, Structure
from .chains import stacks_of
from .places import Places, Stack, by_blocks, by_index
from .tree import Node, Weight, class_of, tree_of

Choose = Callable[[str, nn.Module], bool]
Index = Callable[[str], "int | None"]

LEVELS, LINES = 2, 20  # how much of a network an error shows


def find_blocks(
    model: nn.Module, *, blocks: Sequence[str] | Choose | None = None, index: Index | None = None
) -> Structure:
    """Find the repeated blocks of a network, what runs before them, and what runs after.

    By itself it goes by what is registered where, not by names: chains of same-typed siblings in a list or under
    numbered attributes, nested stages, several stacks. Wrappers (compile, DDP, FSDP, activation checkpointing) do
    not show, shared modules and tied parameters count once, where they are met first. No tensor is read: a model on
    the meta device will do.

    Args:
        model: Any network, or a LightningModule that holds one.
        blocks: Which modules are the blocks, if they are not to be found: globs over module names without wrappers,
            part by part (``"encoder.layers.*"``), or a function of name and module that is true for a block.
            Depth goes by the order of the globs, then of registration; with a function by the latter alone.
        index: Which block a parameter belongs to, counted from 0, as a function of its name, for networks whose
            layers are no modules (``nn.LSTM``). None: the parameter lies before, between or after the blocks.

    Raises:
        ValueError: If there are no such siblings, a glob or function matches nothing, blocks lie inside each
            other, indices leave a gap, or one FSDP flat parameter holds several blocks.
        TypeError: If ``blocks`` is one string, or ``blocks`` and ``index`` are both given.

    Example:
        >>> net = nn.Sequential(nn.Embedding(5, 8), nn.LSTM(8, 8, num_layers=2), nn.Linear(8, 5))
        >>> structure = find_blocks(net, index=lambda name: int(name[-1]) if "_l" in name else None)
        >>> structure.depth_of("1.weight_hh_l1"), structure.block_of("2.weight")
        (2, 'head')
    """
    if blocks is not None and index is not None:
        raise TypeError("find_blocks takes blocks or index, got both.")
    tree = tree_of(model)
    if index is not None:
        return _structure(tree, by_index(tree, index), are_modules=False)
    stacks = _found(tree) if blocks is None else _chosen(tree, blocks)
    return _structure(tree, by_blocks(tree, stacks), are_modules=True)


def _found(tree: Node) -> list[Stack]:
    stacks = stacks_of(tree)
    if not stacks:
        raise ValueError(
            f"No repeated blocks found. {_seen(tree)} Name them with blocks=['path.to.layers.*', ...] or a function "
            "(name, module) -> bool; or give each parameter's block with index=lambda name: ..."
        )
    return stacks


def _chosen(tree: Node, blocks: Sequence[str] | Choose) -> list[Stack]:
    nodes = [node for node in tree.walk() if not node.again and node.name]
    if isinstance(blocks, str):
        raise TypeError(f"blocks must be a list of globs or a function, got the string {blocks!r}.")
    if callable(blocks):
        chosen = [node for node in nodes if blocks(node.name, node.module)]
    else:
        chosen = list(dict.fromkeys(node for glob in blocks for node in _matching(nodes, glob, tree)))
    if not chosen:
        raise ValueError(f"blocks must choose at least one module, got none. {_seen(tree)}")
    for node in chosen:
        for other in chosen:
            if node is not other and node.holds(other):
                raise ValueError(f"Blocks must not lie inside each other, got {node.name!r} and {other.name!r}.")
    return [chosen]


def _matching(nodes: list[Node], glob: str, tree: Node) -> list[Node]:
    parts = glob.split(".")
    matches = []
    for node in nodes:
        names = node.name.split(".")
        if len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
            matches.append(node)
    if not matches:
        raise ValueError(f"The glob {glob!r} matches no module. {_seen(tree)}")
    return matches


def _seen(tree: Node) -> str:
    """The upper two levels, to help write a glob."""
    lines = [
        f"  {node.name}: {class_of(node.module).__name__}, {node.size:,} parameters"
        for node in tree.walk()
        if node.name and node.name.count(".") < LEVELS and not node.again
    ]
    shown = [*lines[:LINES], *(["  ..."] if len(lines) > LINES else [])]
    title = f"{class_of(tree.module).__name__} ({tree.size:,} parameters) has"
    return "\n".join([f"{title}:", *shown, ""]) if lines else f"{title} no children."


def _structure(tree: Node, places: Places, *, are_modules: bool) -> Structure:
    """Everything as names."""
    first: dict[int, Weight] = {}
    aliases: dict[str, str] = {}
    for node in tree.walk():
        for weight in node.weights:
            kept = first.setdefault(id(weight.parameter), weight)
            aliases |= {weight.name: kept.name, weight.raw: kept.name}
    names: list[list[str]] = [[] for _ in range(len(places.labels) + 2)]
    for key, weight in first.items():
        names[places.depths[key]].append(weight.name)
    return Structure(
        tuple(
            Block(name, i, cls, stack, tuple(names[i + 1]), are_modules)
            for i, (name, cls, stack) in enumerate(places.labels)
        ),
        embedding=tuple(names[0]),
        head=tuple(names[-1]),
        sizes={weight.name: weight.size for weight in first.values()},
        raw_names={weight.name: weight.raw for weight in first.values()},
        aliases={alias: name for alias, name in aliases.items() if alias != name},
    )
