"""Intra-negatives of Figure 3 (STCDA): clips made inconsistent in space or in time, and clips in
the wrong order.
"""

import itertools

import torch

from nbkit.errors import NbkitError

FAMILIES = ("spatial", "temporal", "both", "repeat")

# What a spatial negative does to one frame: picture (..., H, W) -> same shape.  Flow vectors keep
# their sign: a flow picture that contradicts its neighbours is the purpose, while negating u as
# well would be a consistent mirror image.
TURNS = {
    "hflip": lambda x: x.flip(-1),
    "vflip": lambda x: x.flip(-2),
    "rot180": lambda x: x.flip((-2, -1)),
    "rot90": lambda x: x.rot90(1, (-2, -1)),
    "rot270": lambda x: x.rot90(3, (-2, -1)),
}


def some_frames(n, frames, generator, frac=(0.25, 0.75)):
    """For each of n clips a random subset of ceil(p T) frames, p uniform in frac; at least one,
    never all.

    Never all: a wholly flipped clip is a valid augmentation, hence a positive elsewhere.  Returns
    bool (n, T).
    """
    if frames < 2:
        raise NbkitError("a negative needs clips of at least 2 frames.")
    p = frac[0] + (frac[1] - frac[0]) * torch.rand(n, generator=generator)  # (n,)
    count = (p * frames).ceil().clamp(1, frames - 1)
    rank = (
        torch.rand(n, frames, generator=generator).argsort(1).argsort(1)
    )  # (n, T) a random order of the frames
    return rank < count[:, None]


def wrong_order(k, n, generator):
    """n orders of k things, drawn uniformly from all but the right one.

    Returns int64 (n, k): permutations of 0..k-1, none of them the identity.  k >= 2.
    """
    if k < 2:
        raise NbkitError(f"{k} clip cannot be put in a wrong order: use at least 2.")
    if k <= 5:  # few enough to list: 1, 5, 23 or 119 wrong orders
        wrong = torch.tensor(
            list(itertools.permutations(range(k)))[1:]
        )  # the first one is the identity
        return wrong[torch.randint(len(wrong), (n,), generator=generator)]
    orders = torch.rand(n, k, generator=generator).argsort(1)  # (n, k)
    while (right := (orders == torch.arange(k)).all(1)).any():
        orders[right] = torch.rand(int(right.sum()), k, generator=generator).argsort(1)
    return orders


def _swapped_chunks(frames, n, generator, chunks=4):
    """n frame orders (n, T) in which two of four equal chunks have changed places (IIC, Tao et al.,
    ACM MM 2020).
    """
    bounds = [round(i * frames / chunks) for i in range(chunks + 1)]
    parts = [torch.arange(a, b) for a, b in itertools.pairwise(bounds)]
    pairs = list(itertools.combinations(range(chunks), 2))
    orders = []
    for draw in torch.randint(len(pairs), (n,), generator=generator).tolist():
        shuffled, (i, j) = list(parts), pairs[draw]
        shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
        orders.append(torch.cat(shuffled))
    return torch.stack(orders)


def frame_orders(n, frames, generator, order="shuffle"):
    """n wrong frame orders, int64 (n, T): 'shuffle' = any but the right one, 'chunks' = two of four
    chunks swapped.
    """
    if order not in ("shuffle", "chunks"):
        raise NbkitError(f"order={order!r}: choose 'shuffle' or 'chunks'.")
    if order == "chunks" and frames >= 4:
        return _swapped_chunks(frames, n, generator)
    return wrong_order(frames, n, generator)


def _batched(function):
    """Let a function of clips (N, C, T, H, W) also take one clip (C, T, H, W)."""

    def wrapper(clips, generator, **options):
        if clips.dim() == 4:
            return function(clips[None], generator, **options)[0]
        return function(clips, generator, **options)

    wrapper.__doc__, wrapper.__name__ = function.__doc__, function.__name__
    return wrapper


@_batched
def spatial_negative(clips, generator, frac=(0.25, 0.75)):
    """Turn a random subset of the frames: each is flipped (horizontally, vertically) or rotated
    (90, 180, 270 degrees).

    clips  (N, C, T, H, W) or (C, T, H, W), RGB or flow;  frac: range of the share of turned frames
    Returns a new tensor of the same shape.  Frames that are not square are not rotated by 90 or 270
    degrees.
    """
    n, _, frames, height, width = clips.shape
    turns = list(TURNS.values())[: 5 if height == width else 3]
    chosen = some_frames(n, frames, generator, frac)  # (N, T)
    kind = torch.randint(len(turns), (n, frames), generator=generator)  # (N, T)
    out = clips.clone()
    by_frame = out.transpose(1, 2)  # (N, T, C, H, W), a view
    for number, turn in enumerate(turns):
        here = (chosen & (kind == number)).to(clips.device)  # (N, T)
        by_frame[here] = turn(by_frame[here])  # (frames, C, H, W)
    return out


@_batched
def temporal_negative(clips, generator, order="shuffle"):
    """Put the frames of each clip (N, C, T, H, W) or (C, T, H, W) in a wrong order, see
    frame_orders.
    """
    orders = frame_orders(len(clips), clips.shape[2], generator, order).to(clips.device)  # (N, T)
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return clips.transpose(1, 2)[rows, orders].transpose(1, 2)  # (N, C, T, H, W)


@_batched
def repeat_negative(clips, generator):
    """Replace each clip (N, C, T, H, W) or (C, T, H, W) by one of its frames, T times (IIC's best
    intra-negative).
    """
    which = torch.randint(clips.shape[2], (len(clips),), generator=generator).to(
        clips.device
    )  # (N,)
    frame = clips[torch.arange(len(clips), device=clips.device), :, which]  # (N, C, H, W)
    return frame.unsqueeze(2).repeat(1, 1, clips.shape[2], 1, 1)


def clip_negative(clips, family, generator, *, frac=(0.25, 0.75), order="shuffle"):
    """The negative v^neg of every clip, before encoding (Fig. 3).

    clips      (N, C, T, H, W), one modality family     'spatial' | 'temporal' | 'both' (each clip
    draws one of the two, as Fig. 3 shows) | 'repeat' generator  torch.Generator on the CPU;  frac,
    order: see spatial_negative and frame_orders Returns a new tensor (N, C, T, H, W).
    """
    if family not in FAMILIES:
        raise NbkitError(f"clip_neg={family!r}: choose one of {FAMILIES}.")
    if family == "repeat":
        return repeat_negative(clips, generator)
    if family == "temporal":
        return temporal_negative(clips, generator, order=order)
    if family == "spatial":
        return spatial_negative(clips, generator, frac=frac)
    out = clips.clone()
    spatial = torch.rand(len(clips), generator=generator).to(clips.device) < 0.5  # (N,)
    out[spatial] = spatial_negative(clips[spatial], generator, frac=frac)
    out[~spatial] = temporal_negative(clips[~spatial], generator, order=order)
    return out
