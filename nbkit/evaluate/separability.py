"""How well two domains mix and how well classes stay apart: what a picture of features hides.

All functions read features in their own space; none depends on an embedding of them.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nbkit.errors import NbkitError
from nbkit.losses.alignment import VideoFeatures, discrepancy


def unit_joined(features: dict[str, torch.Tensor]) -> torch.Tensor:
    """Features of all streams side by side, each scaled to unit length: (..., streams * D).

    Without the scaling the stream with the longer vectors would rule every distance.
    """
    units = [torch.nn.functional.normalize(x.double(), dim=-1) for x in features.values()]
    return torch.cat(units, -1)


def proxy_a_distance(a: np.ndarray, b: np.ndarray, folds: int = 5, seed: int = 0) -> float:
    r"""How well a linear classifier tells two domains apart: 0 it guesses, 2 it never errs.

    $$\hat{d}_{\mathcal{A}} = 2\,(1 - 2\,\epsilon)$$

    epsilon is the error of logistic regression under `folds`-fold cross-validation, averaged over
    the two domains, so that guessing gives 1/2 whatever their sizes. An error above 1/2 counts as
    1/2. Standardisation is fitted inside each fold.

    Args:
        a: features of one domain (N1, D).
        b: features of the other (N2, D).
        folds: parts of the cross-validation, at most the size of the smaller domain.
        seed: of the division into folds.

    Raises:
        NbkitError: fewer than 2 samples in a domain, or different D.

    Source: Ben-David et al., Analysis of Representations for Domain Adaptation, NIPS 2006.
    """
    a, b = np.asarray(a), np.asarray(b)
    folds = min(folds, len(a), len(b))
    if folds < 2 or a.shape[1] != b.shape[1]:
        raise NbkitError(
            f"need two samples or more of one width in each domain, got {a.shape} and {b.shape}"
        )
    x = np.concatenate([a, b])  # (N1 + N2, D)
    domain = np.repeat([0, 1], [len(a), len(b)])  # (N1 + N2,)
    regression = LogisticRegression(class_weight="balanced", max_iter=2000)
    division = StratifiedKFold(folds, shuffle=True, random_state=seed)
    classifier = make_pipeline(StandardScaler(), regression)
    guess = cross_val_predict(classifier, x, domain, cv=division)
    error = np.mean([np.mean(guess[domain == d] != d) for d in (0, 1)])
    return float(max(0.0, 2 * (1 - 2 * error)))


def silhouette_by_class(x: np.ndarray, y: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean silhouette of each class: 1 compact and far from the others, 0 at the border.

    A sample's silhouette is (b - a) / max(a, b): a its mean Euclidean distance to its own class, b
    that to the nearest other class.  Below 0 it lies nearer to another class.

    Args:
        x: features (N, D).
        y: classes (N,) in 0..num_classes-1.

    Returns:
        (num_classes,) in [-1, 1]; nan for a class without a sample, 0 for one with a single sample.

    Raises:
        NbkitError: fewer than two classes present, or as many classes as samples (there is
            nothing to compare).

    Source: Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster
    analysis, Journal of Computational and Applied Mathematics 20, 1987.
    """
    x, y = np.asarray(x), np.asarray(y)
    present = np.unique(y)
    if not 2 <= len(present) < len(y):
        raise NbkitError(
            "a silhouette needs 2 classes or more and some class of 2 samples; "
            f"got {len(present)} in {len(y)} samples"
        )
    each = silhouette_samples(x, y)  # (N,)
    means = np.full(num_classes, np.nan)
    for c in present:
        means[c] = each[y == c].mean()
    return means


def class_gaps(
    source: VideoFeatures,
    target: VideoFeatures,
    y_source: torch.Tensor,
    y_target: torch.Tensor,
    num_classes: int,
) -> np.ndarray:
    """The diagonal of Eq. (7): squared kernel distance of the domains' samples of one class.

    The bandwidth of a class follows its own distances, so the scale of the features does not
    matter. Estimated from n samples the gap is above 0 even where there is none, by an amount that
    falls as 1/n: compare it with the gap between two sets of one domain.

    Args:
        source, target: v (N, K, D) and V (N, D) of each domain.
        y_source, y_target: true classes (N,).

    Returns:
        (num_classes,), 0 or more; nan for a class that one domain lacks.

    Source: STCDA (Song et al., CVPR 2021), Eq. (7) with c1 = c2.
    """
    table = discrepancy((source, target), y_source, y_target, num_classes)  # (C, C)
    gaps = table.diagonal().cpu().numpy()
    both = np.intersect1d(y_source.cpu().numpy(), y_target.cpu().numpy())
    return np.where(np.isin(np.arange(num_classes), both), gaps, np.nan)


def nearest_class_mean(source: np.ndarray, y_source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Give each target sample the class whose source mean is nearest (Euclidean).

    No training, no target label.

    Args:
        source: features (N, D) with classes y_source (N,).
        target: features (M, D).

    Returns:
        (M,) classes out of those in y_source.

    Source: Mensink et al., Distance-Based Image Classification, TPAMI 2013, with the identity as
    metric.
    """
    source, y_source, target = np.asarray(source), np.asarray(y_source), np.asarray(target)
    classes = np.unique(y_source)
    means = np.stack([source[y_source == c].mean(0) for c in classes])  # (C, D)
    squared = (target**2).sum(1)[:, None] - 2 * target @ means.T + (means**2).sum(1)  # (M, C)
    return classes[squared.argmin(1)]
