"""One file a table row.  `METHODS` maps the name in a table to its class; adding a row adds one
line here.
"""

from nbkit.methods.daaa import DAAA
from nbkit.methods.mcd import MCD
from nbkit.methods.mm_sada import MMSADA
from nbkit.methods.mmd import MMD
from nbkit.methods.sava import SAVA
from nbkit.methods.source_only import AdaBN, SourceOnly, SourceTarget, TargetOnly
from nbkit.methods.stcda import STCDA
from nbkit.methods.ta3n import TA3N
from nbkit.methods.tcon import TCoN

METHODS = {
    "source_only": SourceOnly,
    "adabn": AdaBN,
    "mmd": MMD,
    "mcd": MCD,
    "daaa": DAAA,
    "ta3n": TA3N,
    "tcon": TCoN,
    "sava": SAVA,
    "mm_sada": MMSADA,
    "stcda": STCDA,
    "target_only": TargetOnly,
    "source_target": SourceTarget,
}
