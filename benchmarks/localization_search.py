"""One setting of the localizer, judged without a label of the target.

    python benchmarks/localization_search.py "I3D+RPN" seed=1 norm=frozen steps=700 source_steps=400
    python benchmarks/localization_search.py "all three" seed=1 norm=frozen beta=0.2 source=street \
        target=studio

The first argument is a row, the others are fields of the configuration.  One line is printed:

    source   on the validation draw of the source: what adaptation must not cost
    probe    how often fresh discriminators name the domain right, by module (50: chance)
    target   on the validation draw of the target: read after a setting is chosen, never to choose

Checkpoints are those of the run store, so that a chosen setting is not trained again by its table.
"""

from __future__ import annotations

import json
import sys

import torch
import yaml

from nbkit.config.localization import LocalizationConfig
from nbkit.train.localization import trained_detector
from nbkit.train.localization_data import load_data
from nbkit.train.localization_eval import evaluate_localizer, target_statistics
from nbkit.train.localization_probe import probe_domains

SHOWN = ("frame_map", "class_given_box", "box_iou", "proposal_recall")


def judged(cfg: LocalizationConfig) -> dict[str, dict[str, float]]:
    """Train the detector of `cfg`, unless it is trained, and read it on both validation draws."""
    detector, data = trained_detector(cfg), load_data(cfg)
    mirrored = load_data(cfg.replace(source=cfg.target, target=cfg.source))
    statistics = target_statistics(cfg.row)
    _, probe = probe_domains(detector, data.source, data.target, statistics)
    found = {"probe": probe}
    for name, part, domain in (
        ("source", mirrored.test, "source"),
        ("target", data.test, statistics),
    ):
        scores, _ = evaluate_localizer(detector, part, data.classes, cfg, domain)
        found[name] = {measure: scores[measure] for measure in SHOWN}
    return found


def main(row: str, *fields: str) -> None:
    """Print what came out as one line of JSON."""
    torch.set_num_threads(1)
    given = {name: yaml.safe_load(value) for name, value in (f.split("=", 1) for f in fields)}
    cfg = LocalizationConfig.make(**{"eval_split": "val", **given, "row": row})
    rounded = {
        place: {name: round(value, 1) for name, value in numbers.items()}
        for place, numbers in judged(cfg).items()
    }
    print(json.dumps({"row": row, **given, **rounded}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
