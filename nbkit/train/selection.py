"""Diagnostic evaluations during the last stage, and the two columns that they fill.

The result of every table is the last epoch.  `source_val` chooses the epoch on held-out labelled
source videos, which a user could do; `oracle` chooses on the target's test labels, which nobody
can: it only says how much is left to choose.  Neither is used for anything else, and evaluating
changes no weight, no running statistic and no random state.
"""

from __future__ import annotations

from typing import Any

import torch

from nbkit.methods.base import Method
from nbkit.methods.batches import Features, estimate_statistics, extract
from nbkit.train.domains import Domains

# Which accuracy of the history chooses the epoch.
CHOSEN_BY = {"source_val": "val_fused", "oracle": "test_fused"}


def target_features(method: Method, domains: Domains, device: torch.device) -> Features:
    """The target's test videos through the network as it stands (nothing is selected).

    Where the method reads the target with the target's statistics, these are estimated first on
    its unlabelled training videos.
    """
    if method.estimates_target():
        estimate_statistics(method, method.data.plain["target"], "target", device)
    return extract(method, domains.test["target"], method.statistics, device)


def due(method: Method) -> list[tuple[int, int]]:
    """(stage, epoch) pairs, 1-based, that are evaluated: epochs of the last stage that trains."""
    epochs, every = method.cfg.optim.epochs, method.cfg.watch.eval_every
    trained = [stage for stage in method.stages() if epochs[stage - 1]]
    if not every or not trained:
        return []
    last = epochs[trained[-1] - 1]
    return [(trained[-1], e) for e in range(1, last + 1) if e % every == 0 or e == last]


def record(method: Method, domains: Domains, device: torch.device) -> dict[str, Any]:
    """Accuracies in percent for one line of the history.

    `val_<stream>` of the source, `test_<stream>` of the target.  `evaluated` says how: rows that
    share a stage may read it differently (AdaBN and source only), and must not take each other's
    numbers.  A method that learns from no source label (target only), or a source without held-out
    videos, has no `val_` entries.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # A second method with the same weights: estimating statistics writes into the network.
        twin = type(method)(method.cfg, method.data).to(device)
        twin.load_state_dict(method.state_dict())
        found = {}
        # The source first: the test may replace shared statistics.
        if "source" in method.labelled and len(domains.source_val):
            found["val"] = extract(twin, domains.source_val, "source", device)
        found["test"] = target_features(twin, domains, device)
    row: dict[str, Any] = {"evaluated": _how(method)}
    for part, features in found.items():
        row |= {f"{part}_{name}": value for name, value in features.accuracies().items()}
    return row


def _how(method: Method) -> str:
    return f"{method.statistics} statistics, {method.cfg.evaluation.eval_split} split"


def own_history(method: Method, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without evaluations that this run did not ask for, or that another row made."""
    kept, evaluation = [], ("val_", "test_", "evaluated")
    for row in history:
        if method.cfg.watch.eval_every == 0 or row.get("evaluated") != _how(method):
            row = {name: value for name, value in row.items() if not name.startswith(evaluation)}
        kept.append(row)
    return kept


def selected(method: Method, history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """`{'source_val': {'epoch', 'accuracy'}, 'oracle': ...}`, the target's accuracies there.

    None where the last stage was loaded and its training had not recorded every evaluation asked
    for: train with another RUNS_DIR to have it.  `source_val` is None where there are no `val_`
    entries.  Of equals, the later wins.
    """
    rows = {(r["stage"], r["epoch"]): r for r in own_history(method, history) if "evaluated" in r}
    wanted = due(method)
    if not wanted or not set(wanted) <= set(rows):
        return None
    return {name: _choice(rows, wanted, column) for name, column in CHOSEN_BY.items()}


def _choice(rows: dict, wanted: list[tuple[int, int]], column: str) -> dict[str, Any] | None:
    scored = [(rows[at][column], at) for at in wanted if column in rows[at]]
    if not scored:
        return None
    best = rows[max(scored)[1]]
    accuracy = {k.removeprefix("test_"): v for k, v in best.items() if k.startswith("test_")}
    return {"epoch": best["epoch"], "accuracy": accuracy}
