"""Reading published pickles without running anything they contain.

A pickle is a program. This reader runs it with every name replaced: only the handful of names that
plain arrays and old pandas tables need are known, each stands for an inert class of this module,
and nothing of numpy or pandas is called while the file is read. Arrays are built afterwards from
the raw bytes. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbkit.errors import NbkitError

_PLAIN_DTYPE = re.compile(r"[<>|=]?(?:b1?|[iu][1248]|f[248]|O8?|[SU]\d+)")


class _Inert:
    """A remembered call: class or function name, arguments, and the state given later."""

    def __new__(cls, *args):
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        self.state = state


class _NdarrayType(_Inert):
    pass


class _Reconstruct(_Inert):
    """numpy's ``_reconstruct(ndarray, (0,), b'b')``; the state is (version, shape, dtype, fortran,
    data).
    """


class _FromBuffer(_Inert):
    """numpy's ``_frombuffer(data, dtype, shape, order)``, used by protocol 5."""


class _Encode(_Inert):
    """``_codecs.encode(text, 'latin1')``: how protocol 2 stores bytes."""


class _Dtype(_Inert):
    pass


class _Scalar(_Inert):
    pass


class _Frame(_Inert):
    pass


class _Blocks(_Inert):
    pass


class _IndexType(_Inert):
    pass


class _NewIndex(_Inert):
    pass


_NUMPY = {
    ("multiarray", "_reconstruct"): _Reconstruct,
    ("multiarray", "scalar"): _Scalar,
    ("numeric", "_frombuffer"): _FromBuffer,
}
_KNOWN: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _NdarrayType,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    **{
        (f"numpy.{core}.{part}", name): kind
        for core in ("core", "_core")
        for (part, name), kind in _NUMPY.items()
    },
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Blocks,
    ("pandas.core.indexes.base", "Index"): _IndexType,
    ("pandas.core.indexes.base", "_new_Index"): _NewIndex,
    ("pandas.core.indexes.range", "RangeIndex"): _IndexType,
    ("pandas.core.indexes.numeric", "Int64Index"): _IndexType,
}


class _Reader(pickle._Unpickler):
    """Python's own reader in Python: its memo is a dict, so a hostile index cannot claim memory as
    in the C one.
    """

    def find_class(self, module: str, name: str) -> type:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which plain data never needs"
            ) from None


def load_plain_pickle(path: str | Path) -> Any:
    """Load a pickle that holds only plain containers, numbers, text, numpy arrays and old pandas
    tables.

    Returns:
        The same containers, with numpy arrays and ``pandas.DataFrame`` built here.

    Raises:
        NbkitError: the file is absent, is no pickle, or asks for anything else (it is refused,
            not run).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NbkitError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return _build(_Reader(io.BytesIO(data), encoding="latin1").load(), {})
    except NbkitError as error:
        raise NbkitError(f"{path}: {error}") from error
    except Exception as error:  # a broken or hostile pickle may fail anywhere
        raise NbkitError(
            f"{path}: not a plain data pickle: {error}. Nothing in it was run. Get the file from its publisher again, "
            "or export the table as CSV."
        ) from error


def _build(value: Any, done: dict[int, Any]) -> Any:
    """Replace inert objects by arrays and tables; ``done`` keeps shared objects shared and stops
    cycles.
    """
    if not isinstance(value, (_Inert, dict, list, tuple)):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = built = {}
        built.update({_build(k, done): _build(v, done) for k, v in value.items()})
    elif isinstance(value, list):
        done[id(value)] = built = []
        built.extend(_build(v, done) for v in value)
    elif isinstance(value, tuple):
        built = tuple(_build(v, done) for v in value)
    else:
        built = _build_inert(value, done)
    done[id(value)] = built
    return built


def _build_inert(value: _Inert, done: dict[int, Any]) -> Any:
    if isinstance(value, _Reconstruct):
        return _array(value, done)
    if isinstance(value, _FromBuffer):
        raw, dtype, shape, order = value.args
        return (
            np.frombuffer(_raw_bytes(raw), dtype=_dtype(dtype)).copy().reshape(shape, order=order)
        )
    if isinstance(value, _Encode):
        return _raw_bytes(value)
    if isinstance(value, _Scalar):
        dtype, raw = value.args
        return np.frombuffer(_raw_bytes(raw), dtype=_dtype(dtype))[0].item()
    if isinstance(value, _NewIndex):
        arguments = _build(value.args[1], done)
        if "data" in arguments:
            return np.asarray(arguments["data"])
        return np.arange(arguments["start"], arguments["stop"], arguments["step"])
    if isinstance(value, _Frame):
        return _frame(value, done)
    raise NbkitError(f"holds a bare {type(value).__name__.strip('_')}, which plain data never does")


def _dtype(value: Any) -> np.dtype:
    name = value.args[0] if isinstance(value, _Dtype) else None
    state = value.state if isinstance(value, _Dtype) else None
    if not isinstance(name, str) or not _PLAIN_DTYPE.fullmatch(name):
        raise NbkitError(f"array type {name!r} is not a plain number or text type")
    if state is None:
        return np.dtype(name)
    order, subarray, names, fields = state[1:5]
    if (subarray, names, fields) != (None, None, None):
        raise NbkitError("structured array types are not plain data")
    return np.dtype(name).newbyteorder(order)


def _array(value: _Reconstruct, done: dict[int, Any]) -> np.ndarray:
    _, shape, dtype, fortran, raw = value.state
    dtype = _dtype(dtype)
    if dtype.kind == "O":  # numpy lists objects row by row, whatever the memory order
        flat = np.empty(len(raw), dtype=object)
        for i, item in enumerate(raw):
            flat[i] = _build(item, done)
        return flat.reshape(shape)
    return (
        np.frombuffer(_raw_bytes(raw), dtype=dtype)
        .copy()
        .reshape(shape, order="F" if fortran else "C")
    )


def _raw_bytes(raw: Any) -> bytes:
    if isinstance(raw, _Encode):
        text, encoding = raw.args
        if encoding not in ("latin1", "latin-1"):
            raise NbkitError(f"bytes stored in the encoding {encoding!r}")
        raw = text
    return raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 stored bytes as text


def _frame(value: _Frame, done: dict[int, Any]) -> pd.DataFrame:
    """An old-layout table: the manager's state is (axes, block values, block items, ...)."""
    state = value.state
    manager = state.get("_data", state.get("_mgr")) if isinstance(state, dict) else None
    if (
        not isinstance(manager, _Blocks)
        or not isinstance(manager.state, tuple)
        or len(manager.state) < 3
    ):
        raise NbkitError("a pandas table of an unknown layout; export it as CSV")
    axes, blocks, items = (_build(part, done) for part in manager.state[:3])
    columns = {
        str(name): block[i] for block, names in zip(blocks, items) for i, name in enumerate(names)
    }
    order = [str(name) for name in axes[0]]
    return pd.DataFrame({name: columns[name] for name in order}, index=axes[1]).infer_objects()
