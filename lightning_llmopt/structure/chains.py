"""Which modules of a tree are its repeated blocks: siblings of one type, judged by what is in them."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from .tree import LISTS, Node, Shape, number_of

SECOND_STACK = 0.1  # a stack beside the largest: its blocks at least this large, next to the largest one's
PLAIN_SHARE = 0.5  # layers that are not much by themselves are blocks only if most of the network is in them


@dataclass(eq=False)
class Chain:
    """Siblings that are alike, in the order of registration.

    Attributes:
        parent: The module that they are registered on.
        links: The siblings, each module once.
    """

    parent: Node
    links: list[Node]

    @property
    def size(self) -> int:
        """Number of elements of the parameters in all links."""
        return _size(self.links)

    @property
    def trainable(self) -> bool:
        """Whether any parameter in it is."""
        return _trainable(self.links)

    @property
    def signature(self) -> list[tuple[object, dict[str, Shape]]]:
        """Equal for a network and its copy."""
        return [(link.kind, link.shapes) for link in self.links]


Accept = Callable[[Chain], bool]


def stacks_of(tree: Node) -> list[list[Node]]:
    """The stacks of blocks of a network, first registered first; none if it has no repeated blocks.

    A stack is one chain, or the chains of its stages one after the other.

    Tried in this order, until one gives an answer:

    1. chains of rich modules (:func:`is_rich`) in lists or under numbered attributes. The one with the most parameters
       wins; others count beside it if their blocks are at least a tenth as large. Nested stages are opened;
    2. two or more rich siblings of one type under attributes of any name;
    3. plain layers of one type that fit one behind the other, if half of the network outside its embeddings is in them.
    """
    found = _without_copies(_outermost(tree, _is_rich_chain))
    if found:
        return _largest([[link for part in _opened(chain) for link in _joined(part)] for chain in found])
    found = _without_copies(_outermost(tree, _is_rich_chain, groups=_unnumbered))
    if found:
        return _largest([chain.links for chain in found])
    found = _without_copies(_outermost(tree, _is_plain_chain))
    enough = sum(chain.size for chain in found) >= PLAIN_SHARE * _size_in_use(tree, trained=tree.trainable)
    return [chain.links for chain in found] if enough else []


def is_rich(node: Node) -> bool:
    """Whether a module does enough to be a block of a deep network rather than a layer of one.

    It holds two or more matrices, and beside them a layer of vectors alone (a norm) or two parts with matrices of
    their own. A transformer block, a residual block and a Mamba block are rich; a linear layer, a convolution with
    its norm, and an expert or a head made of linear layers are not.
    """
    matrices = [shapes for shapes in node.layers if _has_matrix(shapes)]
    parts = [child for child in node.distinct if child.distinct and any(map(_has_matrix, child.layers))]
    several = sum(len(shape) > 1 for shapes in matrices for shape in shapes) > 1
    return several and (len(matrices) < len(node.layers) or len(parts) > 1)


def _outermost(node: Node, accept: Accept, groups: "Callable[[Node], list[Chain]] | None" = None) -> Iterator[Chain]:
    """Accepted chains below ``node``, none inside a link of another."""
    chains = [chain for chain in (groups or _siblings)(node) if accept(chain)]
    yield from chains
    inside = {id(link) for chain in chains for link in chain.links}
    for child in node.distinct:
        if id(child) not in inside and not _is_average(child):
            yield from _outermost(child, accept, groups)


def _siblings(node: Node) -> list[Chain]:
    """Children of one type: of a list all, of another module those whose names differ in a number."""
    listed = isinstance(node.module, LISTS)
    groups: dict[object, list[Node]] = {}
    for child in node.distinct:
        numbered = number_of(child.name.rpartition(".")[2])
        if listed or numbered:
            groups.setdefault((None if listed else numbered and numbered[0], child.kind), []).append(child)
    return [Chain(node, links) for links in groups.values() if len(links) > 1 or (listed and _is_all(node, links[0]))]


def _unnumbered(node: Node) -> list[Chain]:
    """Children of one type under attributes of any name, unless one is a frozen copy."""
    groups: dict[object, list[Node]] = {}
    for child in node.distinct:
        if not isinstance(child.module, LISTS):
            groups.setdefault(child.kind, []).append(child)
    return [Chain(node, links) for links in groups.values() if len(links) > 1 and len(_trained(links)) == len(links)]


def _trained(links: list[Node]) -> list[Node]:
    """The trainable ones; all, if none is."""
    return [link for link in links if link.trainable] or links


def _is_all(node: Node, link: Node) -> bool:
    """Whether a chain of one is a chain: the only entry of a ModuleList, or one module listed many times."""
    repeated = sum(child.module is link.module for child in node.children) > 1
    return repeated or (isinstance(node.module, nn.ModuleList) and node.distinct == [link])


def _is_rich_chain(chain: Chain) -> bool:
    return all(is_rich(link) for link in chain.links)


def _is_plain_chain(chain: Chain) -> bool:
    """Whether layers with matrices fit one behind the other: what one gives the next can take."""
    ends = []
    for link in chain.links:
        matrices = [shape for shapes in link.layers for shape in shapes if len(shape) > 1]
        if not matrices or any(_is_table(node) for node in link.walk()):
            return False
        ends.append((matrices[0][1], matrices[-1][0]))
    pairs = itertools.pairwise(ends)
    return len(ends) > 1 and all(wide % max(narrow, 1) == 0 for (_, wide), (narrow, _) in pairs)


def _opened(chain: Chain) -> list[Chain]:
    """The chains of blocks inside a chain of stages; of any other chain, itself.

    A link is a stage if it holds a chain of rich, similar modules and less beside it than one of them has: so
    the experts of a block, which stand beside attention and norms, do not make it a stage.
    """
    stages = [_stage_of(link) for link in chain.links]
    inner = [stage for stage in stages if stage is not None]
    if len(inner) < len(stages) or all(len(stage.links) == 1 for stage in inner):
        return [chain]
    return [part for stage in inner for part in _opened(stage)]


def _stage_of(link: Node) -> Chain | None:
    inner = [chain for chain in _outermost(link, _is_rich_chain) if _are_similar(chain.links)]
    if not inner:
        return None
    chain = max(inner, key=lambda chain: chain.size)
    beside = len(link.layers) - sum(len(node.layers) for node in chain.links)
    return chain if beside < min(len(node.layers) for node in chain.links) else None


def _are_similar(links: list[Node]) -> bool:
    """Whether each has the parameters of the smallest, and others at most beside them."""
    ranks = [{(name, len(shape)) for name, shape in link.shapes.items()} for link in links]
    return all(min(ranks, key=len) <= names for names in ranks)


def _joined(chain: Chain) -> list[Node]:
    """The links with rich siblings of other types: in a ModuleList all, in other lists those between its ends."""
    if not isinstance(chain.parent.module, LISTS):
        return chain.links
    first, last = chain.links[0].order, chain.links[-1].order
    everywhere = isinstance(chain.parent.module, nn.ModuleList)
    near = [node for node in chain.parent.distinct if everywhere or first <= node.order <= last]
    return [node for node in near if node in chain.links or is_rich(node)]


def _largest(stacks: list[list[Node]]) -> list[list[Node]]:
    """The stack with the most parameters and those whose blocks are not small beside its own, each block once."""
    main = max([stack for stack in stacks if _trainable(stack)] or stacks, key=_size)
    met: list[Node] = []
    kept = []
    for stack in sorted(stacks, key=lambda stack: stack[0].order):
        own = [block for block in stack if block not in met]
        met += own
        if own and _size(own) / len(own) >= SECOND_STACK * _size(main) / len(main):
            kept.append(own)
    return kept


def _size(stack: list[Node]) -> int:
    return sum(block.size for block in stack)


def _trainable(stack: list[Node]) -> bool:
    return any(block.trainable for block in stack)


def _without_copies(chains: Iterable[Chain]) -> list[Chain]:
    """Without frozen chains that repeat another one exactly: moving averages, teachers."""
    kept: list[Chain] = []
    for chain in sorted(chains, key=lambda chain: not chain.trainable):
        if chain.trainable or all(chain.signature != other.signature for other in kept):
            kept.append(chain)
    return kept


def _size_in_use(node: Node, *, trained: bool) -> int:
    """Size outside tables and averages; of what is trained only, if anything is."""
    if _is_table(node) or _is_average(node) or (trained and not node.trainable):
        return 0
    below = sum(child.size for child in node.distinct)
    return node.size - below + sum(_size_in_use(child, trained=trained) for child in node.distinct)


def _is_average(node: Node) -> bool:
    return any(cls.__name__ == "AveragedModel" for cls in type(node.module).__mro__)


def _is_table(node: Node) -> bool:
    return isinstance(node.module, (nn.Embedding, nn.EmbeddingBag))


def _has_matrix(shapes: list[Shape]) -> bool:
    return any(len(shape) > 1 for shape in shapes)
