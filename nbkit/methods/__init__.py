"""One class per table row.  `METHODS` maps a name in a table to its class, without importing it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from nbkit.errors import require_one_of

if TYPE_CHECKING:
    from nbkit.methods.base import Method


class Entry(NamedTuple):
    """Where a row's class is.

    Raise `version` when a change of the class alters its numbers: runs and stages of older
    versions no longer count.
    """

    path: str
    version: int = 1


METHODS = {
    "source_only": Entry("nbkit.methods.source_only.SourceOnly"),
    "adabn": Entry("nbkit.methods.source_only.AdaBN"),
    "mmd": Entry("nbkit.methods.discrepancy.MMD"),
    "mcd": Entry("nbkit.methods.discrepancy.MCD"),
    "daaa": Entry("nbkit.methods.adversarial.DAAA"),
    "ta3n": Entry("nbkit.methods.adversarial.TA3N"),
    "tcon": Entry("nbkit.methods.adversarial.TCoN"),
    "sava": Entry("nbkit.methods.adversarial.SAVA"),
    "mm_sada": Entry("nbkit.methods.adversarial.MMSADA", version=2),
    "stcda": Entry("nbkit.methods.stcda.STCDA"),
    "target_only": Entry("nbkit.methods.source_only.TargetOnly"),
    "source_target": Entry("nbkit.methods.source_only.SourceTarget"),
}


def method_class(name: str) -> type[Method]:
    """Import the class of a row.  Raises NbkitError for a name that `METHODS` does not have."""
    require_one_of("METHOD", name, METHODS)
    module, _, class_name = METHODS[name].path.rpartition(".")
    return getattr(import_module(module), class_name)
