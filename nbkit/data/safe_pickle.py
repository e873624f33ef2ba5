"""Reading published pickles without running anything they contain.

A pickle is a program. Here every name that it may use is a class that only writes the call down;
arrays and tables are built afterwards from the raw bytes. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbkit.errors import NbkitError

PLAIN_DTYPE = re.compile(r"[<>|=]?(?:b1?|[iu][1248]|f[248]|O8?|[SU]\d+)")
# all that plain arrays and old pandas tables need
ALLOWED = """
    _codecs.encode numpy.ndarray numpy.dtype
    numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer
    pandas.core.frame.DataFrame pandas.core.internals.managers.BlockManager
    pandas.core.indexes.base._new_Index pandas.core.indexes.base.Index
    pandas.core.indexes.range.RangeIndex pandas.core.indexes.numeric.Int64Index
""".split()


class Call:
    """A call that was written down instead of made: its arguments, and the state given later."""

    def __new__(cls, *args: Any) -> Call:
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


CALLS = {name: type(name.rpartition(".")[2], (Call,), {}) for name in ALLOWED}


class _Reader(pickle._Unpickler):
    """Python's own reader in Python: a hostile memo index cannot claim memory as in the C one."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        # the original asks for the memory before it looks whether the file has as many bytes
        self.append(bytearray(self.read(struct.unpack("<Q", self.read(8))[0])))

    def load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._check_keys(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.SETITEM[0]], dispatch[pickle.SETITEMS[0]] = load_setitem, load_setitems

    @staticmethod
    def _check_keys(keys: list[Any]) -> None:
        """Tuples that hold one another take for ever to hash."""
        if any(isinstance(key, tuple) for key in keys):
            raise NbkitError("a tuple as a key")

    def find_class(self, module: str, name: str) -> type:
        if f"{module}.{name}" not in CALLS:
            who = "plain data never needs"
            if module.partition(".")[0] in ("pandas", "pyarrow"):
                who = "a table of a newer version of pandas needs"
            raise NbkitError(f"it asks for {module}.{name}, which {who}")
        return CALLS[f"{module}.{name}"]


def load_plain_pickle(path: str | Path) -> Any:
    """Load a pickle of plain containers, numbers, text, numpy arrays and old pandas tables.

    Raises:
        NbkitError: the file is absent, is no pickle, or asks for anything else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NbkitError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return _build(_Reader(io.BytesIO(data), encoding="latin1").load(), {})
    except Exception as error:  # a broken or hostile pickle may fail anywhere
        raise NbkitError(
            f"{path}: not a plain data pickle: {error}. Nothing in it was run. Get the file from "
            "its publisher again, or export the table as CSV."
        ) from error


def _build(value: Any, done: dict[int, Any]) -> Any:
    """Arrays and tables in place of calls; `done` keeps shared objects shared and stops cycles."""
    if not isinstance(value, (Call, dict, list, tuple)):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = built = {}
        built.update({_build(k, done): _build(v, done) for k, v in value.items()})
    elif isinstance(value, list):
        done[id(value)] = built = []
        built.extend(_build(item, done) for item in value)
    elif isinstance(value, tuple):
        built = tuple(_build(item, done) for item in value)
    else:
        name = type(value).__name__
        if name not in BUILDERS:
            raise NbkitError(f"holds a bare {name}, which plain data never does")
        built = BUILDERS[name](value, done)
    done[id(value)] = built
    return built


def _reconstruct(value: Call, done: dict[int, Any]) -> np.ndarray:
    _, shape, kind, fortran, raw = value.state
    if _dtype(kind).kind == "O":
        # numpy lists objects row by row, whatever the memory order
        flat = np.empty(len(raw), dtype=object)
        for i, item in enumerate(raw):
            flat[i] = _build(item, done)
        return flat.reshape(shape)
    order = "F" if fortran else "C"
    return np.frombuffer(_raw_bytes(raw), _dtype(kind)).copy().reshape(shape, order=order)


def _frombuffer(value: Call, done: dict[int, Any]) -> np.ndarray:
    raw, kind, shape, order = value.args
    return np.frombuffer(_raw_bytes(raw), _dtype(kind)).copy().reshape(shape, order=order)


def _scalar(value: Call, done: dict[int, Any]) -> Any:
    kind, raw = value.args
    return np.frombuffer(_raw_bytes(raw), _dtype(kind))[0].item()


def _index(value: Call, done: dict[int, Any]) -> np.ndarray | pd.RangeIndex:
    given = _build(value.args[1], done)
    if "data" in given:
        if not isinstance(given["data"], np.ndarray):
            raise NbkitError("an index that is no array")
        return given["data"]
    return pd.RangeIndex(given["start"], given["stop"], given["step"])


def _frame(value: Call, done: dict[int, Any]) -> pd.DataFrame:
    """An old-layout table: the manager's state is (axes, block values, block items, ...)."""
    manager = value.state.get("_data", value.state.get("_mgr"))
    axes, blocks, items = (_build(part, done) for part in manager.state[:3])
    columns = {}
    for block, names in zip(blocks, items):
        if not isinstance(block, np.ndarray) or block.shape != (len(names), len(axes[1])):
            raise NbkitError("a table whose columns differ in length")
        columns |= {str(name): block[i] for i, name in enumerate(names)}
    ordered = {str(name): columns[str(name)] for name in axes[0]}
    return pd.DataFrame(ordered, index=axes[1]).infer_objects()


def _dtype(value: Any) -> np.dtype:
    if not isinstance(value, CALLS["numpy.dtype"]) or not PLAIN_DTYPE.fullmatch(value.args[0]):
        raise NbkitError("an array type that is not a plain number or text type")
    dtype = np.dtype(value.args[0])
    if value.state is None:
        return dtype
    order, subarray, names, fields = value.state[1:5]
    if (subarray, names, fields) != (None, None, None):
        raise NbkitError("structured array types are not plain data")
    return dtype.newbyteorder(order)


def _raw_bytes(raw: Any) -> bytes:
    if isinstance(raw, CALLS["_codecs.encode"]):
        raw, encoding = raw.args
        if encoding not in ("latin1", "latin-1"):
            raise NbkitError(f"bytes stored in the encoding {encoding!r}")
    # Python 2 stored bytes as text
    return raw.encode("latin1") if isinstance(raw, str) else raw


BUILDERS: dict[str, Callable[[Call, dict[int, Any]], Any]] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _frombuffer,
    "scalar": _scalar,
    "encode": lambda value, done: _raw_bytes(value),
    "_new_Index": _index,
    "DataFrame": _frame,
}
