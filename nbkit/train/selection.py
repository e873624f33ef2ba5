"""What choosing an epoch would have given: diagnostic evaluations during the last stage, and the
two columns they fill.

The result of every table is the last epoch.  `source_val` chooses the epoch on held-out labelled
source videos, which a user could do; `oracle` chooses on the target's test labels, which nobody
can: it only says how much is left to choose. Neither is used for anything else, and evaluating
changes no weight, no running statistic and no random state.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from nbkit.evaluate.accuracy import top1
from nbkit.methods.base import STAGES, Method
from nbkit.train.features import Features, extract, test_features

CHOICES = {
    "source_val": "val_fused",
    "oracle": "test_fused",
}  # which accuracy of the history chooses the epoch


def due(method: Method, stage: int, epoch: int) -> bool:
    """Whether the end of this epoch (0-based) of this stage is evaluated: every `eval_every`
    epochs, and the last.
    """
    return method.cfg.watch.eval_every > 0 and (stage, epoch + 1) in _wanted(method)


def _wanted(method: Method) -> list[tuple[int, int]]:
    """(stage, epoch) pairs, 1-based, that are to be evaluated; only the last stage that trains has
    any.
    """
    cfg = method.cfg
    stage = max((s for s in STAGES if cfg.optim.epochs[s - 1] and not method.skips(s)), default=0)
    last = cfg.optim.epochs[stage - 1] if stage else 0
    return [(stage, e) for e in range(1, last + 1) if e % cfg.watch.eval_every == 0 or e == last]


def record(method: Method, device: torch.device) -> dict[str, Any]:
    """Accuracies in percent for one line of the history: `val_<stream>` of the source,
    `test_<stream>` of the target.

    Evaluates a copy of the network, because re-estimating the target's statistics writes into it.
    `evaluated` says how: rows that share a stage may read it differently (AdaBN and source only),
    and must not take each other's numbers. A method that learns from no source label (target only),
    or a source without held-out videos, has no `val_` entries.
    """
    network = method.model
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        method.model = copy.deepcopy(network)
        try:
            found = {}
            if "source" in method.labelled and len(
                method.domains.source_val
            ):  # first: the test may replace shared statistics
                found["val"] = extract(
                    method.model, method.domains.source_val, "source", method.cfg, device
                )
            found["test"] = test_features(method, device)
        finally:
            method.model = network
    return {"evaluated": _how(method)} | {
        f"{part}_{m}": a for part, f in found.items() for m, a in _accuracies(f).items()
    }


def _accuracies(features: Features) -> dict[str, float]:
    labels = features.labels.cpu().numpy()
    return {m: top1(p.argmax(-1).cpu().numpy(), labels) for m, p in features.probs.items()}


def _how(method: Method) -> str:
    passes = (
        " from random batches" if method.statistics == "target" else ""
    )  # once they were in the order of the files
    return f"{method.statistics} statistics{passes}, {method.cfg.evaluation.eval_split} split"


def own_history(method: Method, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without evaluations that this run did not ask for, or that a row made which reads
    a stage otherwise.
    """

    def keep(row: dict, name: str) -> bool:
        ours = method.cfg.watch.eval_every > 0 and row.get("evaluated") == _how(method)
        return ours or not name.startswith(("val_", "test_", "evaluated"))

    return [{k: v for k, v in row.items() if keep(row, k)} for row in history]


def selected(method: Method, history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """`{'source_val': {'epoch', 'accuracy'}, 'oracle': ...}`; the accuracies are the target's, by
    stream and fused.

    None where the last stage was loaded and its training had not recorded every evaluation asked
    for: train with another RUNS_DIR to have it.  `source_val` is None where there are no `val_`
    entries.  Of equals, the later wins.
    """
    rows = {(r["stage"], r["epoch"]): r for r in own_history(method, history) if "evaluated" in r}
    wanted = _wanted(method)
    if not wanted or not set(wanted) <= set(rows):
        return None
    found: dict[str, Any] = {}
    for choice, column in CHOICES.items():
        scored = [(rows[at][column], at) for at in wanted if column in rows[at]]
        best = rows[max(scored)[1]] if scored else None
        found[choice] = best and {
            "epoch": best["epoch"],
            "accuracy": {
                k.removeprefix("test_"): v for k, v in best.items() if k.startswith("test_")
            },
        }
    return found
