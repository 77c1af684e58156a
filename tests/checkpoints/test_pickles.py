"""Pickles read as data: equal to what unpickling gives for plain values, and nothing is run for others."""

import collections
import os
import pickle
import random
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_llmopt.checkpoints.pickles import Built, Global, read_pickle

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
KEYS = st.integers() | st.text(max_size=5) | st.tuples(st.integers(), st.text(max_size=3))
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_what_unpickling_gives(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol=protocol)).value == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_shared_and_ordered_values_are_kept(protocol):
    inner = [1, 2]
    ordered = collections.OrderedDict(b=inner, a=inner)
    value = read_pickle(pickle.dumps(ordered, protocol=protocol)).value
    assert list(value.items()) == [("b", [1, 2]), ("a", [1, 2])]
    assert value["a"] is value["b"]


class Evil:
    """What unpickling would make of it."""

    def __init__(self, what, *args):
        self.what, self.args = what, args

    def __reduce__(self):
        return self.what, self.args


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_is_told_and_not_made(tmp_path, protocol):
    told = read_pickle(pickle.dumps({"x": Evil(os.mkdir, str(tmp_path / "made"))}, protocol=protocol))
    assert told.globals == (f"{os.name}.mkdir" if os.name == "nt" else "posix.mkdir",)
    assert isinstance(told.value["x"], Built)
    assert told.value["x"].args == (str(tmp_path / "made"),)
    assert not (tmp_path / "made").exists()


HAND_WRITTEN = {
    b"(S'true'\nios\nsystem\n.": ("os.system",),  # INST
    b"(cos\nsystem\nS'true'\no.": ("os.system",),  # OBJ
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.": ("os.system",),  # STACK_GLOBAL
    b"\x80\x04cbuiltins\ngetattr\n\x8c\x01a\x93.": None,  # a name that is no string: refused, its parts are not there
    b"\x80\x04]\x8c\x01a\x93.": ("a name that is put together while unpickling",),
    b"\x80\x02\x82\x07.": ("copyreg.extension 7",),
    b"\x80\x04cos\nsystem\n)\x81.": ("os.system",),  # NEWOBJ
    b"\x80\x04cos\nsystem\n)}\x92.": ("os.system",),  # NEWOBJ_EX
}


@pytest.mark.parametrize("data", HAND_WRITTEN)
def test_every_way_to_ask_for_a_name_is_seen(data):
    if HAND_WRITTEN[data] is None:
        assert read_pickle(data).globals[0] == "builtins.getattr"
    else:
        assert read_pickle(data).globals == HAND_WRITTEN[data]


def test_state_items_and_storages_are_kept():
    told = read_pickle(b"\x80\x02ca\nb\n)\x81}X\x01\x00\x00\x00kK\x05sb.")
    assert (told.value.what, told.value.state) == ("a.b", {"k": 5})
    told = read_pickle(b"\x80\x02(X\x07\x00\x00\x00storageca\nb\ntQ.")
    identity = told.persistent[0]
    assert identity[0] == "storage"
    assert isinstance(identity[1], Global)
    assert told.value.what == "persistent_load"


@pytest.mark.parametrize("data", [b"", b".", b"nonsense", b"K\x05", b"h\x05.", b"e.", b"R.", b"\x80\x04\x8c\x7fabc."])
def test_what_is_no_pickle_is_refused(data):
    with pytest.raises(ValueError, match="pickle is damaged"):
        read_pickle(data)


def test_damage_anywhere_leads_to_a_value_or_a_refusal_and_to_nothing_else():
    whole = pickle.dumps({"a": [1, 2.5, "x"], "b": {(1, 2): collections.OrderedDict(c=None)}, "d": Evil(os.mkdir, "x")})
    draw = random.Random(0)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with suppress(ValueError):
            read_pickle(bytes(data))
    assert not os.path.exists("x")


def test_a_key_that_is_nested_without_end_does_not_end_the_process():
    code = "from lightning_llmopt.checkpoints.pickles import read_pickle;"
    code += r"print(len(read_pickle(b'\x80\x02})' + b'\x85' * 10**6 + b'K\x01s.').value))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "1\n", done.stderr
