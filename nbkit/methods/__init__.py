"""One file a table row.  `METHODS` maps the name in a table to its class; adding a row adds one line here."""

from nbkit.methods.source_only import AdaBN, SourceOnly, SourceTarget, TargetOnly
from nbkit.methods.stcda import STCDA

METHODS = {
    "source_only": SourceOnly,
    "adabn": AdaBN,
    "stcda": STCDA,
    "target_only": TargetOnly,
    "source_target": SourceTarget,
}
