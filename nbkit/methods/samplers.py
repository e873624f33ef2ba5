"""Which videos form which batch: functions of (seed, epoch) only, so that a resumed run sees the
same batches.
"""

import numpy as np

from nbkit.errors import NbkitError


def epoch_batches(n, batch, seed, epoch):
    """A random order of n videos cut into ceil(n / batch) batches.

    Batch sizes differ by at most one and never exceed `batch`: a small rest batch would upset batch
    statistics. Returns a list of int64 arrays that together hold 0..n-1 once each.
    """
    if n < 1 or batch < 1:
        raise NbkitError(
            f"cannot draw batches of {batch} from {n} videos: both must be at least 1."
        )
    order = np.random.default_rng((seed, epoch, 0)).permutation(n)
    return np.array_split(order, -(-n // batch))


def _take(members, count, rng):
    """`count` of the members: without repetition where there are enough, else each equally often
    (+-1).
    """
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate(rounds)[:count]


def class_aware_batches(labels_source, labels_target, classes, per_class, n_batches, seed, epoch):
    """Batches in which source and target show the same classes (Kang et al., CAN, CVPR 2019).

    labels_source  int (N_s,) class ids;   labels_target: int (N_t,) pseudo-labels, -1 = rejected,
    never drawn classes        classes a batch (fewer where fewer occur in both domains);
    per_class: videos per class and domain Classes are dealt in turn, so that over a few batches all
    are seen equally often. Returns a list of n_batches pairs (source indices, target indices),
    int64, ordered by class alike. Raises NbkitError where no class occurs in both domains.
    """
    source, target = np.asarray(labels_source), np.asarray(labels_target)
    shared = np.intersect1d(source[source >= 0], target[target >= 0])
    if len(shared) == 0:
        raise NbkitError(
            "no class has both source videos and (pseudo-labelled) target videos: no batch can be drawn."
        )
    rng = np.random.default_rng((seed, epoch, 1))
    members = {
        c: (np.flatnonzero(source == c), np.flatnonzero(target == c)) for c in shared.tolist()
    }
    classes, deck, batches = min(classes, len(shared)), [], []
    for _ in range(n_batches):
        chosen = []
        while len(chosen) < classes:
            deck = deck or rng.permutation(shared).tolist()
            place = next((i for i, c in enumerate(deck) if c not in chosen), None)
            if place is None:  # what is left of the deck is in this batch already
                deck = deck + rng.permutation(shared).tolist()
                continue
            chosen.append(deck.pop(place))
        batches.append(
            tuple(
                np.concatenate([_take(members[c][d], per_class, rng) for c in chosen])
                for d in (0, 1)
            )
        )
    return batches
