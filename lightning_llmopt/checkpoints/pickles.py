"""Reads a pickle as data: a stack machine that builds containers, numbers and strings, and calls nothing.

Where unpickling would import and call, a ``Built`` takes the place: it says what would have been called, and with what.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict")
_SIMPLE = (str, int, float, bool, bytes, type(None))
_MARK = object()


@dataclass(frozen=True, eq=False)
class Global:
    """Something that unpickling would import.

    Args:
        name: Module and name, with a dot between them.
    """

    name: str


@dataclass(eq=False)
class Built:
    """Something that unpickling would make by a call.

    Args:
        what: What would be called, by name; ``"persistent_load"`` for what the reader itself supplies.
        args: What with.
        state: What it would be given afterwards.
        items: What would be put into it afterwards.
    """

    what: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pickled:
    """A pickle, read.

    Args:
        value: What it describes.
        globals: Everything that it would import, in order of appearance.
        persistent: What it asks its reader for: the ids of storages, in torch's files.
    """

    value: Any
    globals: tuple[str, ...]
    persistent: tuple[Any, ...]


def read_pickle(data: bytes) -> Pickled:
    """The pickle as plain data; nothing is imported and nothing is called.

    Args:
        data: The whole pickle.

    Raises:
        ValueError: If it is no pickle, or a damaged one.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"step": 3})).value
        {'step': 3}
        >>> read_pickle(b"cos\\nsystem\\n(S'true'\\ntR.").globals
        ('os.system',)
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.take(opcode.name, argument)
        value = machine.stack.pop()
    except RecursionError:
        raise ValueError("pickle is nested too deeply to be read") from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged stream leads to
        raise ValueError(f"pickle is damaged: {str(error)[:200] or type(error).__name__}") from None
    return Pickled(value, tuple(machine.globals), tuple(machine.persistent))


class _Machine:
    """The state of reading: a stack, a memo, and what was asked for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, None] = {}
        self.persistent: list[Any] = []

    def take(self, name: str, argument: Any) -> None:
        """Do as one opcode says, short of importing and calling."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in _IDLE:
            raise ValueError(f"opcode {name} is not known")

    def above_mark(self) -> list[Any]:
        """What was put on the stack since the last mark, taken off with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:  # an IndexError where there is none
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def name(self, module: Any, name: Any) -> None:
        known = isinstance(module, str) and isinstance(name, str)
        full = f"{module}.{name}" if known else "a name that is put together while unpickling"
        self.globals[full] = None
        self.stack.append(Global(full))

    def call(self, what: Any, args: Any) -> None:
        name = what.name if isinstance(what, Global) else what.what if isinstance(what, Built) else type(what).__name__
        given = args if isinstance(args, tuple) else (args,)
        if name in _MAPPINGS:
            pairs = given[-1] if given and isinstance(given[-1], list | dict) else ()
            self.stack.append({})
            self.put_all([part for pair in pairs for part in pair] if isinstance(pairs, list) else [])
        elif name == "torch.Size" and given and isinstance(given[0], tuple):
            self.stack.append(given[0])
        else:
            self.stack.append(Built(name, given))

    def put_all(self, flat: list[Any]) -> None:
        """Keys and values, one after the other, into what is on top."""
        target = self.stack[-1]
        items = target if isinstance(target, dict) else target.items if isinstance(target, Built) else {}
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[_hashable(key)] = value

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Built):
            target.items.update({len(target.items) + at: item for at, item in enumerate(items)})

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Built):
            self.stack[-1].state = state

    def persist(self, identity: Any) -> None:
        self.persistent.append(identity)
        self.stack.append(Built("persistent_load", (identity,)))


def _hashable(key: Any) -> Any:
    """The key, or an object of its own: hashing deep tuples can exhaust the C stack, and lists have no hash."""
    flat = isinstance(key, tuple) and all(isinstance(part, _SIMPLE) for part in key)
    return key if isinstance(key, (*_SIMPLE, Global, Built)) or flat else Built("key", (key,))


def _tuple_of(number: int) -> Callable[[_Machine, Any], None]:
    def take(machine: _Machine, argument: Any) -> None:
        if number > len(machine.stack):
            raise ValueError("the stack is empty")
        machine.stack[-number:] = [tuple(machine.stack[-number:])]

    return take


def _reduce(machine: _Machine, argument: Any) -> None:
    args = machine.stack.pop()
    machine.call(machine.stack.pop(), args)


def _new_with_names(machine: _Machine, argument: Any) -> None:
    names, args = machine.stack.pop(), machine.stack.pop()
    machine.call(machine.stack.pop(), (*args, names) if isinstance(args, tuple) else (args, names))


def _instance(machine: _Machine, argument: str) -> None:
    args = tuple(machine.above_mark())
    machine.name(*argument.split(" ", 1))
    machine.call(machine.stack.pop(), args)


def _object(machine: _Machine, argument: Any) -> None:
    what, *args = machine.above_mark()
    machine.call(what, tuple(args))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name = machine.stack.pop()
    machine.name(machine.stack.pop(), name)


def _one_item(machine: _Machine, argument: Any) -> None:
    value = machine.stack.pop()
    machine.put_all([machine.stack.pop(), value])


def _frozen(machine: _Machine, argument: Any) -> None:
    machine.stack.append(Built("builtins.frozenset", tuple(machine.above_mark())))


def _dict(machine: _Machine, argument: Any) -> None:
    flat = machine.above_mark()
    machine.stack.append({})
    machine.put_all(flat)


def _get(machine: _Machine, argument: int) -> None:
    machine.stack.append(machine.memo[argument])


def _put(machine: _Machine, argument: int) -> None:
    machine.memo[argument] = machine.stack[-1]


_IDLE = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "FLOAT", "BINFLOAT",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: _MARK,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": lambda: Built("builtins.set"),
    "NEXT_BUFFER": lambda: Built("buffer"),
}  # fmt: skip
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.above_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.above_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.above_mark()),
    "LIST": lambda machine, _: machine.stack.append(machine.above_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.above_mark())),
    "TUPLE1": _tuple_of(1), "TUPLE2": _tuple_of(2), "TUPLE3": _tuple_of(3),
    "DICT": _dict,
    "SETITEM": _one_item,
    "SETITEMS": lambda machine, _: machine.put_all(machine.above_mark()),
    "FROZENSET": _frozen,
    "GET": _get, "BINGET": _get, "LONG_BINGET": _get,
    "PUT": _put, "BINPUT": _put, "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "EXT1": lambda machine, code: machine.name("copyreg", f"extension {code}"),
    "EXT2": lambda machine, code: machine.name("copyreg", f"extension {code}"),
    "EXT4": lambda machine, code: machine.name("copyreg", f"extension {code}"),
    "REDUCE": _reduce, "NEWOBJ": _reduce, "NEWOBJ_EX": _new_with_names, "INST": _instance, "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, identity: machine.persist(identity),
    "BINPERSID": lambda machine, _: machine.persist(machine.stack.pop()),
}  # fmt: skip
