"""The contrastive part of STCDA: the positives and negatives of Fig. 3, handed to Eqs. (1)-(4)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from nbkit.errors import NbkitError
from nbkit.losses.contrastive import (
    MemoryBank,
    chance_level,
    clip_loss,
    contrastive_loss,
    video_loss,
)
from nbkit.methods.batches import in_batches
from nbkit.methods.negatives import clip_negative, feature_negative, residual_view, wrong_order
from nbkit.models.norm import keep_statistics, use_domain

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig
    from nbkit.methods.base import Batch, Outputs, TrainingData
    from nbkit.models.two_stream import Stream, TwoStream

# By stream: v (B, K, D), V (B, D), their negatives v_neg (B, K, D) and V_neg (B, M, D), and a
# second view v_2, V_2 where there is one stream only.
Views = dict[str, dict[str, Tensor]]
OTHER = {"rgb": "flow", "flow": "rgb"}


class Contrast(nn.Module):
    """Memory banks and Eq. (4) over the domains that STCL uses.

    Each stream has a bank of clips and one of their negatives. A clip's slot is K * (video number)
    + (clip number); target videos are numbered after the source's.
    """

    def __init__(self, cfg: RunConfig, data: TrainingData):
        super().__init__()
        self.cfg = cfg
        self.active = (cfg.stcl.stcl_domains,)
        if cfg.stcl.stcl_domains == "both":
            self.active = ("source", "target")
        counts = {d: len(data.train[d]) for d in self.active}
        self.offset = {"source": 0, "target": counts.get("source", 0)}
        videos = sum(counts.values())
        most = cfg.data.clips * videos - 1
        if cfg.stcl.nce_k > most:
            raise NbkitError(
                f"NCE_K={cfg.stcl.nce_k}: the banks hold {most} clips beside an anchor's own; "
                "lower NCE_K"
            )
        self.clips, self.negatives = self._banks(videos, 11), self._banks(videos, 23)
        self.register_buffer("ready", torch.tensor(False))
        # whether a stream has no other to be compared with, and gets a second view in its place
        self.alone = len(cfg.streams) == 1 and cfg.stcl.single_view2 != "none"
        self.video_kinds = cfg.stcl.video_neg.split("+")
        if cfg.model.aggregation == "mean":  # blind to the order of clips
            self.video_kinds = ["clip"]
        self.chance = self._chance()

    def _banks(self, videos: int, salt: int) -> nn.ModuleDict:
        cfg, found = self.cfg, nn.ModuleDict()
        dim = cfg.model.feature_dim
        if cfg.model.head == "mlp":
            dim //= 2
        for i, m in enumerate(cfg.streams):
            found[m] = MemoryBank(
                cfg.data.clips * videos,
                dim,
                cfg.stcl.bank_momentum,
                cfg.seed + salt + i,
                slots_per_video=cfg.data.clips,
            )
        return found

    def _chance(self) -> dict[str, float]:
        """Losses of a network that knows nothing, by which normalise='log_candidates' divides."""
        stcl, candidates, positives = self.cfg.stcl, self.cfg.stcl.nce_k + 2, 1
        if len(self.cfg.streams) == 2 or self.alone:
            candidates += stcl.nce_k + 1
            if stcl.multi_pos == "sum_in_log":
                positives = 2
        video = chance_level(1 + len(self.video_kinds))
        return {"clip_chance": chance_level(candidates, positives), "video_chance": video}

    # --- loss ------------------------------------------------------------------------------------
    def forward(
        self, model: TwoStream, sides: dict[str, tuple[Batch, Outputs]], generator: Generator
    ) -> Tensor:
        """Eq. (4) over the union of the domains' batches; `sides` holds both by domain."""
        stcl, by_domain, slots = self.cfg.stcl, [], []
        for domain, (batch, outputs) in sides.items():
            by_domain.append(self.views(model, batch, outputs, domain, generator))
            slots.append(self.slots(batch["index"], domain))
        views: Views = {}
        for m, first in by_domain[0].items():
            views[m] = {name: torch.cat([each[m][name] for each in by_domain]) for name in first}
        slots = torch.cat(slots)  # (B, K)
        clip_terms, video_terms = {}, {}
        for m, own in views.items():
            bank2, v2, V2, V_neg = self.clips[m], own.get("v_2"), own.get("V_2"), own["V_neg"]
            if OTHER[m] in views:
                other = views[OTHER[m]]
                bank2, v2, V2 = self.clips[OTHER[m]], other["v"], other["V"]
                if stcl.video_neg_modality == "other":
                    V_neg = other["V_neg"]
            if "clip" in stcl.stcl_terms:
                clip_terms[m] = clip_loss(  # (B, K)
                    own["v"],
                    own["V"],
                    v2,
                    bank2.draw(slots, stcl.nce_k, generator),  # (B, K, k, D)
                    own["v_neg"],
                    self.negatives[m].draw(slots, stcl.nce_k, generator),
                    tau=stcl.tau,
                    multi_pos=stcl.multi_pos,
                    unit_banks=True,
                )
            if "video" in stcl.stcl_terms and V2 is not None:
                video_terms[m] = video_loss(own["V"], V2, V_neg, stcl.tau)  # (B,)
        for m, own in views.items():
            self.clips[m].update(slots, own["v"])
            self.negatives[m].update(slots, own["v_neg"])
        return contrastive_loss(clip_terms, video_terms, normalise=stcl.normalise, **self.chance)

    # --- views -----------------------------------------------------------------------------------
    def views(
        self, model: TwoStream, batch: Batch, outputs: Outputs, domain: str, generator: Generator
    ) -> Views:
        """The features of Fig. 3 of one domain's batch, all behind the head."""
        live = torch.is_grad_enabled() and self.cfg.stcl.neg_grad == "live"
        found: Views = {}
        with use_domain(model, domain):
            for m, out in outputs.items():
                stream = model.streams[m]
                with keep_statistics(model), torch.set_grad_enabled(live):
                    clips = self.negative_clips(model, batch, m, generator)
                    v_neg = stream.clip_features(clips)  # (B, K, D)
                    V_neg = self.negative_videos(stream, out.v, v_neg, generator)
                    found[m] = {"v_neg": stream.head(v_neg), "V_neg": stream.head(V_neg)}
                found[m] |= {"v": stream.head(out.v), "V": stream.head(out.V)}
                if self.alone:
                    v_2 = self.second_clips(model, batch, m)  # (B, K, D)
                    found[m] |= {"v_2": stream.head(v_2), "V_2": stream.head(stream.aggregate(v_2))}
        return found

    def second_clips(self, model: TwoStream, batch: Batch, m: str) -> Tensor:
        """The second view of a single stream through the stream's own encoder: v (B, K, D)."""
        stream = model.streams[m]
        if self.cfg.stcl.single_view2 == "augment":
            return stream.clip_features(batch[f"{m}_2"])
        with keep_statistics(model):  # no test video looks like this
            if f"{m}_2" in batch:  # cached features have the residual's, too
                return stream.clip_features(batch[f"{m}_2"])
            if batch[m].dim() != 6:
                raise NbkitError(
                    f"SINGLE_VIEW2='residual': BACKBONE={self.cfg.model.backbone!r} caches "
                    "features of frames, not of their differences; use SINGLE_VIEW2='augment'"
                )
            residual = partial(residual_view, scale=self.cfg.stcl.residual_scale)
            return stream.clip_features(batch[m], residual)  # (B, K, C, T, H, W) -> (B, K, D)

    def negative_clips(
        self, model: TwoStream, batch: Batch, m: str, generator: Generator
    ) -> Tensor:
        """Clips in wrong pose or wrong order, (B, K, ...) as the stream's input is."""
        how = self.family(model.streams[m])
        if f"{m}_views" in batch:  # cached features
            clips = batch[f"{m}_views"]  # (B, K, T, V, F)
            negative = feature_negative(clips.flatten(0, 1), how, generator)
        else:
            clips = batch[m]  # (B, K, C, T, H, W)
            negative = clip_negative(clips.flatten(0, 1), how, generator)
        return negative.unflatten(0, clips.shape[:2])

    def family(self, stream: Stream) -> str:
        """`clip_neg`, less what the encoder cannot see.

        To an encoder that averages frames a clip in wrong order is the clip itself: its negative
        would equal its positive.
        """
        how = self.cfg.stcl.clip_neg
        if stream.encoder.sees_order or how in ("spatial", "repeat"):
            return how
        if how == "both":
            return "spatial"
        raise NbkitError(
            f"CLIP_NEG={how!r}: BACKBONE={self.cfg.model.backbone!r} averages its frames and does "
            "not see their order; use 'spatial', 'repeat' or 'both' (which leaves the order alone)"
        )

    def negative_videos(
        self, stream: Stream, v: Tensor, v_neg: Tensor, generator: Generator
    ) -> Tensor:
        """Videos with clips in a wrong order, or with a clip or more replaced: V_neg (B, M, D)."""
        b, k = v.shape[:2]
        kinds = []
        if "order" in self.video_kinds:
            order = wrong_order(k, b, generator).to(v.device, non_blocking=True)  # (B, K)
            kinds.append(stream.aggregate(v.gather(1, order[..., None].expand_as(v))))
        if "clip" in self.video_kinds:
            swap = torch.rand(b, k, generator=generator) < 0.5
            at_least = torch.randint(k, (b,), generator=generator)
            swap[torch.arange(b), at_least] = True
            swap = swap.to(v.device, non_blocking=True)  # (B, K)
            kinds.append(stream.aggregate(torch.where(swap[..., None], v_neg, v)))
        return torch.stack(kinds, dim=1)

    # --- banks -----------------------------------------------------------------------------------
    def slots(self, index: Tensor, domain: str) -> Tensor:
        """Bank rows (B, K) of the clips of videos `index` (B,)."""
        clips = torch.arange(self.cfg.data.clips, device=index.device)
        return (index + self.offset[domain])[:, None] * self.cfg.data.clips + clips

    @torch.no_grad()
    def fill_banks(self, model: TwoStream, data: TrainingData, kinds: dict[str, Any]) -> None:
        """bank_init='forward': a first pass puts real features into every row.

        The first losses then mean something.  `kinds` are arguments of a data set's `batch`.
        """
        self.ready.fill_(True)
        if self.cfg.stcl.bank_init == "random":
            return
        generator, device = Generator().manual_seed(self.cfg.seed + 31), self.ready.device
        with keep_statistics(model):
            for d in self.active:
                for batch in in_batches(data.train[d], device, self.cfg.seed, **kinds):
                    with use_domain(model, d):
                        outputs = model(batch)
                    views = self.views(model, batch, outputs, d, generator)
                    slots = self.slots(batch["index"], d)
                    for m, own in views.items():
                        self.clips[m].initialise(slots, own["v"])
                        self.negatives[m].initialise(slots, own["v_neg"])
