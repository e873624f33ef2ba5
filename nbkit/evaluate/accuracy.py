"""Top-1 accuracy, overall and by class."""

from __future__ import annotations

import numpy as np


def top1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of right predictions in percent, the papers' only recognition metric.

    predicted, labels: (N,).
    """
    return float(100.0 * np.mean(np.asarray(predicted) == np.asarray(labels)))


def per_class(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> list[float]:
    """Top-1 in percent for each class; nan for a class with no video."""
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    shares = []
    for c in range(num_classes):
        own = labels == c
        if own.any():
            shares.append(top1(predicted[own], labels[own]))
        else:
            shares.append(float("nan"))
    return shares


def confusion(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, C) counts: rows true classes, columns predicted ones."""
    found = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(found, (np.asarray(labels), np.asarray(predicted)), 1)
    return found
