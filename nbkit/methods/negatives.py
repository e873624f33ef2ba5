"""What STCDA contrasts a clip with: Figure 3's intra-negatives, and a second view of one stream.

A negative is inconsistent in space or time, or has its clips in a wrong order.  `generator` is a
torch.Generator on the CPU throughout, and what is chosen with it becomes positions there: a mask on
a GPU would make the host wait for the number of its entries.
"""

from __future__ import annotations

import itertools

import torch
from torch import Generator, Tensor

from nbkit.errors import NbkitError, require_one_of

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


def some_frames(n: int, frames: int, generator: Generator) -> Tensor:
    """For each of n clips a random subset of ceil(p T) frames, p uniform in (0.25, 0.75).

    At least one frame, and never all: a wholly flipped clip is a valid augmentation, hence a
    positive elsewhere.  Returns bool (n, T).
    """
    if frames < 2:
        raise NbkitError("a negative needs clips of at least 2 frames.")
    p = 0.25 + 0.5 * torch.rand(n, generator=generator)  # (n,)
    count = (p * frames).ceil().clamp(1, frames - 1)
    order = torch.rand(n, frames, generator=generator).argsort(1)  # (n, T)
    rank = order.argsort(1)
    return rank < count[:, None]


def wrong_order(k: int, n: int, generator: Generator) -> Tensor:
    """n orders of k >= 2 things, drawn uniformly from all but the right one.

    Returns int64 (n, k): permutations of 0..k-1, none of them the identity.
    """
    if k < 2:
        raise NbkitError(f"{k} clip cannot be put in a wrong order: use at least 2.")
    if k <= 5:  # few enough to list: 1, 5, 23 or 119 wrong orders
        _right, *wrong = itertools.permutations(range(k))
        return torch.tensor(wrong)[torch.randint(len(wrong), (n,), generator=generator)]
    orders = torch.rand(n, k, generator=generator).argsort(1)  # (n, k)
    while (right := (orders == torch.arange(k)).all(1)).any():
        orders[right] = torch.rand(int(right.sum()), k, generator=generator).argsort(1)
    return orders


# --- the second view of a single stream ----------------------------------------------------------
def residual_view(clips: Tensor, scale: float) -> Tensor:
    """The differences of neighbouring frames, as a clip of the same modality.

    It comes from the same frames but does not share their appearance: background and clothes stand
    still and vanish, what moves stays.  Two augmented views of one clip agree by the background
    alone.  IIC (Tao et al., ACM MM 2020) calls this view the residual.

    Args:
        clips: (..., C, T, H, W), T >= 2; RGB in [0, 1] (C = 3) or flow in [-1, 1] (C = 2).
        scale: by which differences are multiplied before they are clamped to the modality's range.
            No change is mid-grey in RGB and 0 in flow.

    Returns:
        The shape of `clips`; the last difference stands twice.

    Raises:
        NbkitError: clips of one frame, which have no difference.
    """
    if clips.shape[-3] < 2:
        raise NbkitError("a residual view needs clips of at least 2 frames.")
    change = clips.diff(dim=-3)  # (..., C, T-1, H, W)
    change = torch.cat([change, change[..., -1:, :, :]], dim=-3)  # (..., C, T, H, W)
    if clips.shape[-4] == 3:
        return (0.5 + scale * change).clamp(0, 1)
    return (scale * change).clamp(-1, 1)


# --- negatives of clips (N, C, T, H, W), RGB or flow: new tensors of the same shape --------------
def spatial_negative(clips: Tensor, generator: Generator) -> Tensor:
    """Turn a random subset of the frames: each is flipped, or rotated by 90, 180 or 270 degrees.

    Frames that are not square are not rotated by 90 or 270 degrees.
    """
    n, _, frames, height, width = clips.shape
    turns = list(TURNS.values())
    if height != width:
        turns = turns[:3]
    chosen = some_frames(n, frames, generator)  # (N, T)
    kind = torch.randint(len(turns), (n, frames), generator=generator)  # (N, T)
    out = clips.clone()
    by_frame = out.transpose(1, 2)  # (N, T, C, H, W), a view
    for number, turn in enumerate(turns):
        here = _positions(chosen & (kind == number), clips)
        by_frame[here] = turn(by_frame[here])  # (frames, C, H, W)
    return out


def temporal_negative(clips: Tensor, generator: Generator) -> Tensor:
    """Put the frames of each clip in a wrong order."""
    n, frames = len(clips), clips.shape[2]
    orders = wrong_order(frames, n, generator).to(clips.device, non_blocking=True)  # (N, T)
    rows = torch.arange(n, device=clips.device)[:, None]
    return clips.transpose(1, 2)[rows, orders].transpose(1, 2)  # (N, C, T, H, W)


def repeat_negative(clips: Tensor, generator: Generator) -> Tensor:
    """Replace each clip by one of its frames, T times (IIC's best intra-negative)."""
    n, frames = len(clips), clips.shape[2]
    which = torch.randint(frames, (n,), generator=generator)  # (N,)
    which = which.to(clips.device, non_blocking=True)
    frame = clips[torch.arange(n, device=clips.device), :, which]  # (N, C, H, W)
    return frame.unsqueeze(2).repeat(1, 1, frames, 1, 1)


def clip_negative(clips: Tensor, family: str, generator: Generator) -> Tensor:
    """The negative v^neg of every clip, before encoding (Fig. 3).

    `family`: 'spatial' | 'temporal' | 'both' (each clip draws one of the two, as Fig. 3 shows) |
    'repeat'.
    """
    require_one_of("clip_neg", family, FAMILIES)
    if family == "repeat":
        return repeat_negative(clips, generator)
    if family == "temporal":
        return temporal_negative(clips, generator)
    if family == "spatial":
        return spatial_negative(clips, generator)
    out = clips.clone()
    turned = torch.rand(len(clips), generator=generator) < 0.5  # (N,)
    spatial, temporal = _positions(turned, clips), _positions(~turned, clips)
    out[spatial] = spatial_negative(clips[spatial], generator)
    out[temporal] = temporal_negative(clips[temporal], generator)
    return out


def _positions(chosen: Tensor, clips: Tensor) -> tuple[Tensor, ...]:
    """Where `chosen` is true, one index per axis, on the device of `clips`."""
    return tuple(i.to(clips.device, non_blocking=True) for i in chosen.nonzero(as_tuple=True))


def clip_variants(clips: Tensor, scale: float, generator: Generator) -> Tensor:
    """What is computed of every clip for a frozen video network, in the order of VARIANTS.

    Shapes: clips (N, C, T, H, W) -> (N, 5, C, T, H, W).  Channels: 3 are RGB in [0, 1], 2 are flow.
    `scale` is that of `residual_view`.
    """
    mirrored = clips.flip(-1)
    if clips.shape[1] == 2:
        mirrored[:, 0].neg_()  # u points the other way
    spatial, temporal = spatial_negative(clips, generator), temporal_negative(clips, generator)
    return torch.stack([clips, mirrored, spatial, temporal, residual_view(clips, scale)], dim=1)


def feature_negative(views: Tensor, family: str, generator: Generator) -> Tensor:
    """`clip_negative` on cached features.

    Features of frames, views (N, T, V, F): a turned frame is the feature of another view.  Features
    of clips, views (N, 1, 3, F): the clip, its spatial and its temporal negative are stored.
    View 0 is the clip itself.  Returns (N, T, F).
    """
    require_one_of("clip_neg", family, FAMILIES)
    n, frames, count = views.shape[:3]
    if frames == 1:
        return _stored_negative(views, family, generator)
    if count < 2 and family in ("spatial", "both"):
        raise NbkitError("a spatial negative needs features of at least 2 views.")
    view = torch.zeros(n, frames, dtype=torch.long)  # (N, T)
    time = torch.arange(frames).expand(n, frames)  # (N, T)
    if family == "repeat":
        time = torch.randint(frames, (n, 1), generator=generator).expand(n, frames)
    if family in ("spatial", "both"):
        other = torch.randint(1, count, (n, frames), generator=generator)
        view = torch.where(some_frames(n, frames, generator), other, view)
    if family in ("temporal", "both"):
        time = wrong_order(frames, n, generator)
    if family == "both":  # each clip keeps one of the two changes
        spatial = torch.rand(n, 1, generator=generator) < 0.5
        view = torch.where(spatial, view, 0)
        time = torch.where(spatial, torch.arange(frames), time)
    rows = torch.arange(n, device=views.device)[:, None]
    time, view = (x.to(views.device, non_blocking=True) for x in (time, view))
    return views[rows, time, view]  # (N, T, F)


def _stored_negative(views: Tensor, family: str, generator: Generator) -> Tensor:
    """(N, 1, 3, F) -> (N, 1, F): one of the two negatives that are stored of every clip."""
    if family == "repeat":
        raise NbkitError(
            "CLIP_NEG='repeat' with features of clips: stored are 'spatial' and 'temporal' "
            "negatives (and 'both'); choose one of them"
        )
    if family == "both":
        kind = torch.randint(1, 3, (len(views),), generator=generator)
    else:
        kind = torch.full((len(views),), 1 if family == "spatial" else 2)
    return views[torch.arange(len(views)), :, kind.to(views.device)]
