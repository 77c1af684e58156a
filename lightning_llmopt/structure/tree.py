"""A network as a tree of named modules in which wrappers do not show."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

WRAPPED_AS = {  # attribute that holds the wrapped module -> classes that wrap so; none named: the attribute says it all
    "_orig_mod": frozenset[str](),
    "_fsdp_wrapped_module": frozenset[str](),
    "_checkpoint_wrapped_module": frozenset[str](),
    "module": frozenset({"DistributedDataParallel", "DataParallel", "DeepSpeedEngine"}),
}
UNMISTAKABLE = {name for name, classes in WRAPPED_AS.items() if not classes}
LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """One occurrence of a parameter; a tied one occurs more than once.

    Attributes:
        name: Where it is, without wrappers.
        raw: Where it is, as ``named_parameters`` says.
        parameter: The parameter itself.
        shape: Shape of the whole, whatever a shard of it looks like.
    """

    name: str
    raw: str
    parameter: nn.Parameter
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements of the whole."""
        return math.prod(self.shape)


@dataclass(eq=False)
class Node:
    """A module, its wrappers taken off, and what is in it in the order of registration.

    Attributes:
        name: Name without wrappers; empty for the network itself.
        raw: Name as ``named_modules`` says.
        module: The module itself, unwrapped.
        order: Place in a walk through the whole tree.
        again: Whether the same module was met before, under another name.
        weights: Parameters registered on the module itself.
        hidden: Shapes of parameters of the module itself that an FSDP flat parameter has swallowed.
        children: Modules registered on it, repeated ones too.
    """

    name: str
    raw: str
    module: nn.Module
    order: int
    again: bool
    weights: list[Weight] = field(default_factory=list)
    hidden: list[tuple[str, Shape]] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def holds(self, other: "Node") -> bool:
        """Whether ``other`` is this node or lies below it."""
        return not self.name or other.name == self.name or other.name.startswith(f"{self.name}.")

    @cached_property
    def distinct(self) -> list["Node"]:
        """Children that hold parameters, each module once."""
        return [child for child in self.children if not child.again and child.shapes]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every parameter in it, by name from here; those of repeated modules once."""
        below = dict([*self.hidden, *self._visible()])
        for child in self.children:
            if not child.again:
                below |= {f"{_tail(child.name)}.{name}": shape for name, shape in child.shapes.items()}
        return below

    @cached_property
    def size(self) -> int:
        """Number of elements of the parameters in it."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def trainable(self) -> bool:
        """Whether any parameter in it is."""
        return any(weight.parameter.requires_grad for node in self.walk() for weight in node.weights)

    @cached_property
    def layers(self) -> list[list[Shape]]:
        """Shapes of the parameters of each module in it that has some of its own."""
        own = [[shape for _, shape in [*node.hidden, *node._visible()]] for node in self.walk() if not node.again]
        return [shapes for shapes in own if shapes]

    @cached_property
    def kind(self) -> object:
        """What siblings must share to be of one type; for a bare list, the types in it."""
        cls = class_of(self.module)
        return (cls, frozenset(child.kind for child in self.distinct)) if cls in LISTS else cls

    def _visible(self) -> list[tuple[str, Shape]]:
        flat = ("_flat_param", "flat_param")
        return [(_tail(weight.name), weight.shape) for weight in self.weights if _tail(weight.name) not in flat]


def class_of(module: nn.Module) -> type:
    """The class that was written, where torch put one of its own on top (FSDP2, parametrizations)."""
    cls = type(module)
    for prefix in ("FSDP", "Parametrized"):
        for base in cls.__mro__[1:]:
            if cls.__name__ == prefix + base.__name__:
                return base
    return cls


def unwrap(module: nn.Module) -> tuple[list[str], nn.Module]:
    """Attributes that lead to the wrapped module, and that module.

    Example:
        >>> unwrap(nn.DataParallel(nn.Linear(1, 1)))
        (['module'], Linear(in_features=1, out_features=1, bias=True))
    """
    path: list[str] = []
    while (attribute := _wrapped_as(module)) is not None:
        path.append(attribute)
        module = module._modules[attribute]  # type: ignore[assignment]  # _wrapped_as saw that it is there
    return path, module


def without_wrappers(name: str) -> str:
    """``name`` without those parts that only a wrapper can have put there.

    Example:
        >>> without_wrappers("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
        'layers.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in UNMISTAKABLE)


def tree_of(model: nn.Module) -> Node:
    """The whole network as a tree."""
    hidden: dict[int, list[tuple[str, Shape]]] = {}
    for module in model.modules():
        for owner, name, shape in _flattened(module):
            hidden.setdefault(id(owner), []).append((name, shape))
    return _Builder(hidden).node(model, name="", raw="", above=())


class _Builder:
    """Numbers nodes and remembers modules while the tree grows."""

    def __init__(self, hidden: dict[int, list[tuple[str, Shape]]]) -> None:
        self.hidden = hidden
        self.met: set[int] = set()
        self.order = 0

    def node(self, module: nn.Module, *, name: str, raw: str, above: tuple[int, ...]) -> Node:
        path, inner = unwrap(module)
        wrappers = [module]
        for attribute in path:
            wrappers.append(wrappers[-1]._modules[attribute])  # type: ignore[arg-type]
        node = Node(name, ".".join(filter(None, [raw, *path])), inner, self.order, id(inner) in self.met)
        self.order += 1
        shapes = dict(self.hidden.get(id(inner), []))
        for depth, wrapper in enumerate(wrappers):
            node.weights += self._weights(wrapper, name, ".".join(filter(None, [raw, *path[:depth]])), shapes)
        names = {_tail(weight.name) for weight in node.weights}
        node.hidden = [] if node.again else [item for item in shapes.items() if item[0] not in names]
        self.met.add(id(inner))
        for key, child in inner._modules.items():
            if child is not None and id(unwrap(child)[1]) not in (*above, id(inner)):
                below = self.node(child, name=_join(name, key), raw=_join(node.raw, key), above=(*above, id(inner)))
                node.children.append(below)
        return node

    def _weights(self, module: nn.Module, name: str, raw: str, shapes: dict[str, Shape]) -> list[Weight]:
        found = []
        for key, parameter in module._parameters.items():
            if parameter is not None:
                shape = shapes[key] if key in shapes else _shape(parameter)
                found.append(Weight(_join(name, key), _join(raw, key), parameter, shape))
        return found


def _shape(parameter: nn.Parameter) -> Shape:
    """Shape of the whole parameter; of a lazy one nothing is known yet."""
    if nn.parameter.is_lazy(parameter):
        return ()
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 leaves an empty stub and this note


def _flattened(module: nn.Module) -> Iterator[tuple[nn.Module, str, Shape]]:
    """What FSDP1 has put into the flat parameter of ``module``: owner, name and shape of each."""
    flat = getattr(module.__dict__.get("_handle"), "flat_param", None)
    for info, shape in zip(getattr(flat, "_param_infos", ()), getattr(flat, "_shapes", ()), strict=True):
        yield info.module, info.param_name, tuple(shape)


def _wrapped_as(module: nn.Module) -> str | None:
    classes = {cls.__name__ for cls in type(module).__mro__}
    for attribute, wrappers in WRAPPED_AS.items():
        if module._modules.get(attribute) is not None and (not wrappers or wrappers & classes):
            return attribute
    return None


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _tail(name: str) -> str:
    return name.rpartition(".")[2]


def number_of(key: str) -> tuple[str, int] | None:
    """Stem and number of an attribute such as ``layer3``, or None.

    Example:
        >>> number_of("layer3"), number_of("encoder")
        (('layer', 3), None)
    """
    match = re.fullmatch(r"(.*?)(\d+)", key)
    return (match[1], int(match[2])) if match else None
