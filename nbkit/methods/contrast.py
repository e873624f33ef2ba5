"""The contrastive part of STCDA: builds the positives and negatives of Fig. 3 and calls Eqs. 1-4 on
them.
"""

from __future__ import annotations

import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.losses.contrastive import chance_level, clip_loss, contrastive_loss, video_loss
from nbkit.losses.memory_bank import MemoryBank
from nbkit.methods.base import Batch, Outputs, Step
from nbkit.methods.negatives import clip_negative, wrong_order
from nbkit.models.norm import keep_statistics, use_domain
from nbkit.models.two_stream import TwoStream
from nbkit.train.domains import Domains
from nbkit.train.features import in_random_batches

Side = tuple[Batch, Outputs]


class Contrast(nn.Module):
    """Memory banks (one of clips and one of their negatives per stream, over the domains that STCL
    uses) and Eq. (4).

    A clip's slot is K * (video number) + (clip number); target videos are numbered after the
    source's.
    """

    def __init__(self, cfg: RunConfig, domains: Domains, model: TwoStream):
        super().__init__()
        self.cfg, self.domains = cfg, domains
        self.__dict__["model"] = model  # a reference, not a second registration of its parameters
        self.active = ("source", "target") if cfg.stcl.stcl_domains == "both" else (cfg.stcl.stcl_domains,)
        counts = {d: len(domains.train[d]) for d in self.active}
        self.offset = {"source": 0, "target": counts.get("source", 0)}
        slots = cfg.data.clips * sum(counts.values())
        dim = cfg.model.feature_dim // 2 if cfg.model.head == "mlp" else cfg.model.feature_dim

        def banks(salt: int) -> nn.ModuleDict:
            return nn.ModuleDict(
                {
                    m: MemoryBank(
                        slots,
                        dim,
                        cfg.stcl.bank_momentum,
                        cfg.seed + salt + i,
                        slots_per_video=cfg.data.clips,
                    )
                    for i, m in enumerate(cfg.streams)
                }
            )

        self.clips, self.negatives = banks(11), banks(23)
        self.register_buffer("ready", torch.tensor(False))

    # --- loss
    # --------------------------------------------------------------------------------------------------
    def forward(self, sides: dict[str, Side], step: Step) -> torch.Tensor:
        """Eq. (4) over the union of the given domains' batches."""
        views = {d: self.views(batch, outputs, d, step) for d, (batch, outputs) in sides.items()}
        merged = {
            m: {k: torch.cat([views[d][m][k] for d in views]) for k in views[next(iter(views))][m]}
            for m in self.cfg.streams
        }
        slots = torch.cat(
            [self.slots(batch["index"], d) for d, (batch, _) in sides.items()]
        )  # (B, K)
        clip_terms, video_terms = {}, {}
        for m, w in merged.items():
            other = self.other(m)
            if "clip" in self.cfg.stcl.stcl_terms:
                clip_terms[m] = self.clip_term(m, w, merged, slots, step)
            if "video" in self.cfg.stcl.stcl_terms and (other in merged or "V_2" in w):
                V2 = merged[other]["V"] if other in merged else w["V_2"]  # (B, D)
                pool = (
                    merged[other]
                    if self.cfg.stcl.video_neg_modality == "other" and other in merged
                    else w
                )
                video_terms[m] = video_loss(w["V"], V2, pool["V_neg"], self.cfg.stcl.tau)  # (B,)
        self.remember(merged, slots)
        return contrastive_loss(
            clip_terms, video_terms, normalise=self.cfg.stcl.normalise, **self.chance(merged)
        )

    def clip_term(
        self, m: str, w: dict, merged: dict, slots: torch.Tensor, step: Step
    ) -> torch.Tensor:
        """Eq. (1) for every clip of stream `m`: (B, K)."""
        other, k = self.other(m), self.cfg.stcl.nce_k
        b, clips = slots.shape
        v2 = merged[other]["v"] if other in merged else w.get("v_2")
        bank = self.clips[other if other in merged else m]
        drawn = bank.draw(slots.flatten(), k, step.generator).unflatten(
            0, (b, clips)
        )  # (B, K, k, D)
        drawn_neg = (
            self.negatives[m].draw(slots.flatten(), k, step.generator).unflatten(0, (b, clips))
        )
        return clip_loss(
            w["v"],
            w["V"],
            v2,
            drawn if v2 is not None else None,
            w["v_neg"],
            drawn_neg,
            tau=self.cfg.stcl.tau,
            multi_pos=self.cfg.stcl.multi_pos,
        )

    def chance(self, merged: dict) -> dict[str, float]:
        """Losses of a network that knows nothing, by which normalise='log_candidates' divides."""
        two_views = len(merged) == 2 or "v_2" in next(iter(merged.values()))
        candidates = 2 * self.cfg.stcl.nce_k + 3 if two_views else self.cfg.stcl.nce_k + 2
        positives = 2 if self.cfg.stcl.multi_pos == "sum_in_log" and two_views else 1
        kinds = next(iter(merged.values()))["V_neg"].shape[1]
        return {
            "clip_chance": chance_level(candidates, positives),
            "video_chance": chance_level(1 + kinds),
        }

    def other(self, m: str) -> str:
        """The second view of stream `m`."""
        return "flow" if m == "rgb" else "rgb"

    # --- views
    # -------------------------------------------------------------------------------------------------
    def views(
        self, batch: Batch, outputs: Outputs, domain: str, step: Step
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Per stream: v, V, their negatives, and a second view where there is one stream only; all
        behind the head.
        """
        found, live = {}, torch.is_grad_enabled() and self.cfg.stcl.neg_grad == "live"
        with use_domain(self.model, domain):
            for m, out in outputs.items():
                stream = self.model.streams[m]
                with keep_statistics(self.model), torch.set_grad_enabled(live):
                    v_neg, V_neg = self.negative_views(stream, batch, m, out.v, step.generator)
                    found[m] = {"v_neg": stream.head(v_neg), "V_neg": stream.head(V_neg)}
                found[m] |= {"v": stream.head(out.v), "V": stream.head(out.V)}
                if f"{m}_2" in batch:
                    v_2 = stream.clip_features(batch[f"{m}_2"])
                    found[m] |= {"v_2": stream.head(v_2), "V_2": stream.head(stream.aggregate(v_2))}
        return found

    def negative_views(
        self, stream: nn.Module, batch: Batch, m: str, v: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fig. 3: v_neg (B, K, D) of clips in wrong pose or wrong order; V_neg (B, M, D) of videos
        made from them.
        """
        b, k = v.shape[:2]
        if f"{m}_views" in batch:
            from nbkit.data.features import feature_negative

            x = feature_negative(
                batch[f"{m}_views"].flatten(0, 1), self.cfg.stcl.clip_neg, generator
            )  # (BK, T, F)
        else:
            x = clip_negative(
                batch[m].flatten(0, 1), self.cfg.stcl.clip_neg, generator
            )  # (BK, C, T, H, W)
        v_neg = stream.clip_features(x.unflatten(0, (b, k)))  # (B, K, D)
        kinds = []
        if "order" in self.cfg.stcl.video_neg and self.cfg.model.aggregation != "mean":
            order = wrong_order(k, b, generator).to(v.device)  # (B, K)
            kinds.append(stream.aggregate(v.gather(1, order[..., None].expand_as(v))))
        if "clip" in self.cfg.stcl.video_neg:
            swap = torch.rand(b, k, generator=generator) < 0.5
            swap[torch.arange(b), torch.randint(k, (b,), generator=generator)] = (
                True  # at least one
            )
            kinds.append(stream.aggregate(torch.where(swap.to(v.device)[..., None], v_neg, v)))
        return v_neg, torch.stack(kinds, dim=1)

    # --- banks
    # -------------------------------------------------------------------------------------------------
    def slots(self, index: torch.Tensor, domain: str) -> torch.Tensor:
        """Bank rows (B, K) of the clips of videos `index` (B,)."""
        clips = torch.arange(self.cfg.data.clips, device=index.device)
        return (index + self.offset[domain])[:, None] * self.cfg.data.clips + clips

    @torch.no_grad()
    def remember(self, merged: dict, slots: torch.Tensor) -> None:
        """Mix the current features into their rows."""
        for m, w in merged.items():
            self.clips[m].update(slots.flatten(), w["v"].flatten(0, 1).detach())
            self.negatives[m].update(slots.flatten(), w["v_neg"].flatten(0, 1).detach())

    @torch.no_grad()
    def fill_banks(self) -> None:
        """bank_init='forward': one pass puts real features into every row, so that the first losses
        mean something.
        """
        self.ready.fill_(True)
        if self.cfg.stcl.bank_init == "random":
            return
        generator = torch.Generator().manual_seed(self.cfg.seed + 31)
        device = self.ready.device
        with keep_statistics(self.model):
            for d in self.active:
                for batch in in_random_batches(
                    self.domains.train[d], self.cfg, device, contrast=True
                ):
                    with use_domain(self.model, d):
                        outputs = self.model(batch)
                    views = self.views(batch, outputs, d, Step(1, 0, 0.0, generator))
                    slots = self.slots(batch["index"], d).flatten()
                    for m, w in views.items():
                        self.clips[m].initialise(slots, w["v"].flatten(0, 1))
                        self.negatives[m].initialise(slots, w["v_neg"].flatten(0, 1))
