"""STCDA (Song et al., CVPR 2021): cross-entropy, contrastive learning (Eqs. 1-4) and alignment
(Eqs. 5-8).

beta = 0 is the paper's "STCL" row, alpha = 0 its "VCA" row, both 0 its "Source only"; alignment =
"adversarial" is its row "w/ adversarial loss" (Table 6b), whose form the paper does not give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.losses.adversarial import ramp
from nbkit.losses.alignment import VideoFeatures, vca
from nbkit.losses.pseudo_labels import kmeans_pseudo_labels
from nbkit.methods.adapting import adversary, own_random_numbers
from nbkit.methods.base import Batch, Method, Outputs, Step
from nbkit.methods.contrast import Contrast
from nbkit.methods.samplers import class_aware_batches
from nbkit.models.clip_heads import DomainClassifier
from nbkit.train.domains import Domains
from nbkit.train.features import estimate_statistics, extract

STCL_FIELDS = (
    "alpha",
    "alpha_schedule",
    "stcl_domains",
    "stcl_terms",
    "tau",
    "nce_k",
    "bank_momentum",
    "bank_init",
    "multi_pos",
    "normalise",
    "clip_neg",
    "video_neg",
    "video_neg_modality",
    "neg_grad",
    "single_view2",
)
VCA_FIELDS = (
    "beta",
    "vca_levels",
    "gamma_scope",
    "kmeans_centre",
    "kmeans_iterations",
    "pseudo_labels",
    "fusion",
    "cas_classes",
    "cas_per_class",
)
ADVERSARIAL_FIELDS = ("beta", "vca_levels", "alignment", "grl_max")


class STCDA(Method):
    """The whole of Eq. (10).  Stage 1: contrastive only; stage 2: + cross-entropy; stage 3: +
    alignment.
    """

    def __init__(self, cfg: RunConfig, domains: Domains):
        super().__init__(cfg, domains)
        self.contrast = Contrast(cfg, domains, self.model) if cfg.stcl.alpha > 0 else None
        rows = len(cfg.streams)
        self.register_buffer(
            "pseudo", torch.full((rows, len(domains.train["target"])), -1)
        )  # (M, N_t) by stream
        self.discriminators = (
            self.make_discriminators() if cfg.vca.beta > 0 and cfg.vca.alignment == "adversarial" else None
        )
        self.uses_target = cfg.stcl.alpha > 0 or cfg.vca.beta > 0
        self.statistics = "target" if self.uses_target else "source"

    def signature(self, stage: int) -> dict[str, Any]:
        """A stage is determined by the terms that are active in it, so rows share what they have in
        common.
        """
        cfg, found = self.cfg, self.plain_signature()
        if (self.version > 1 or type(self) is not STCDA) and (
            cfg.stcl.alpha > 0 or cfg.vca.beta > 0 and stage == 3
        ):
            found |= self.own_signature()
        if self.clusters(stage) or (cfg.stcl.alpha > 0 and cfg.stcl.bank_init == "forward"):
            found["passes"] = (
                # statistics and banks are filled so, and not in the order of the files
                "random order"
            )
        if cfg.stcl.alpha > 0:
            found |= {k: getattr(cfg, k) for k in STCL_FIELDS}
        if cfg.vca.beta > 0 and stage == 3:
            fields = VCA_FIELDS if self.discriminators is None else ADVERSARIAL_FIELDS
            found |= {k: getattr(cfg, k) for k in fields}
            if cfg.vca.beta_schedule != "constant":
                found["beta_schedule"] = cfg.vca.beta_schedule
            if self.clusters(stage):
                found["cas_per_class"] = self.per_class()
                if cfg.vca.fusion == "per_modality":
                    found["batches"] = "by streams in turn"
        return found

    def skips(self, stage: int) -> bool:
        return stage == 1 and self.contrast is None

    def start_stage(self, stage: int) -> None:
        if self.contrast is not None and not bool(self.contrast.ready):
            self.contrast.fill_banks()

    def trainable(self, stage: int) -> Iterator[nn.Parameter]:
        return (self if self.aligns(stage) else self.model).parameters()

    def keeps(self, stage: int, name: str) -> bool:
        return self.aligns(stage) or not name.startswith("discriminators.")

    # --- pseudo-labels
    # -----------------------------------------------------------------------------------------
    def aligns(self, stage: int) -> bool:
        """Whether D_VCA, or the adversary in its place, is part of this stage's objective."""
        return stage == 3 and self.cfg.vca.beta > 0

    def clusters(self, stage: int) -> bool:
        """Whether the stage needs pseudo-labels."""
        return self.aligns(stage) and self.discriminators is None

    def start_epoch(self, stage: int, epoch: int) -> dict[str, float]:
        if not self.clusters(stage) or (epoch > 0 and self.cfg.vca.pseudo_labels == "fixed"):
            return {}
        return self.cluster()

    def cluster(self) -> dict[str, float]:
        """K-means pseudo-labels of the target training videos, from the network as it stands."""
        cfg = self.cfg
        if cfg.model.bn_mode == "per_domain":  # the target's statistics may never have been filled before
            estimate_statistics(
                self.model, self.domains.plain["target"], "target", cfg, self.pseudo.device
            )
        source = extract(
            self.model, self.domains.plain["source"], "source", cfg, self.pseudo.device
        )
        target = extract(
            self.model, self.domains.plain["target"], "target", cfg, self.pseudo.device
        )
        found = kmeans_pseudo_labels(
            source.V,
            source.labels,
            target.V,
            len(self.domains.classes),
            centre=cfg.vca.kmeans_centre,
            fusion=cfg.vca.fusion,
            iterations=cfg.vca.kmeans_iterations,
            fixed=cfg.vca.pseudo_labels == "fixed",
        )
        labels = (
            found.labels
            if isinstance(found.labels, dict)
            else {m: found.labels for m in cfg.streams}
        )
        changed = 0.0
        for row, m in enumerate(cfg.streams):
            new = labels[m].to(self.pseudo.device)
            changed += float((new != self.pseudo[row]).float().mean()) / len(cfg.streams)
            self.pseudo[row] = new
        return {"pseudo_changed": changed, "kmeans_iterations": float(found.iterations)}

    def per_class(self) -> int:
        """Videos a class: `cas_per_class`, more where there are fewer classes than `cas_classes`,
        to keep the batch's size.
        """
        cfg = self.cfg
        return (
            cfg.vca.cas_classes * cfg.vca.cas_per_class // min(cfg.vca.cas_classes, len(self.domains.classes))
        )

    def batches(self, stage: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Class-aware pairs while D_VCA is on (random ones leave many class pairs empty), random
        ones otherwise.

        Without fusion the streams have labels of their own: the steps take turns, so that no
            stream is favoured.
        """
        plain = super().batches(stage, epoch)
        if not self.clusters(stage):
            return plain
        cfg = self.cfg
        own = self.pseudo if cfg.vca.fusion == "per_modality" else self.pseudo[:1]
        by_stream = [
            class_aware_batches(
                self.domains.train["source"].labels,
                pseudo.cpu().numpy(),
                cfg.vca.cas_classes,
                self.per_class(),
                len(plain),
                cfg.seed,
                epoch,
            )
            for pseudo in own
        ]
        return [by_stream[step % len(by_stream)][step] for step in range(len(plain))]

    # --- objective
    # ---------------------------------------------------------------------------------------------
    def forward(self, source: Batch, target: Batch | None, step: Step) -> dict[str, torch.Tensor]:
        out_s = self.outputs(source, "source")
        terms = {} if step.stage == 1 else {"ce": self.supervised(out_s, source["label"])}
        if not self.uses_target:
            return terms
        needs_target = self.aligns(step.stage) or (
            self.contrast is not None and self.cfg.stcl.stcl_domains != "source"
        )
        out_t = self.outputs(target, "target") if needs_target else None
        if self.contrast is not None:
            weight = self.cfg.stcl.alpha * self._decay(step)
            sides = {"source": (source, out_s), "target": (target, out_t)}
            if self.cfg.stcl.stcl_domains != "both":
                sides = {self.cfg.stcl.stcl_domains: sides[self.cfg.stcl.stcl_domains]}
            terms["contrast"] = weight * self.contrast(sides, step)
        if self.aligns(step.stage) and self.discriminators is not None:
            terms["domain"] = self._beta(step) * self.adversaries(
                out_s, out_t, self.cfg.comparison.grl_max * ramp(step.progress)
            )
        elif self.aligns(step.stage):
            terms["vca"] = self._beta(step) * self.alignment(
                out_s, source["label"], out_t, target["index"]
            )
        return terms

    def _decay(self, step: Step) -> float:
        """alpha falls linearly to zero over stage 3 with alpha_schedule='decay'."""
        return (
            1.0 - step.progress if self.cfg.stcl.alpha_schedule == "decay" and step.stage == 3 else 1.0
        )

    def _beta(self, step: Step) -> float:
        """beta grows linearly from zero over stage 3 with beta_schedule='ramp': early pseudo-labels
        are the least sure.
        """
        return self.cfg.vca.beta * step.progress if self.cfg.vca.beta_schedule == "ramp" else self.cfg.vca.beta

    def alignment(
        self, out_s: Outputs, y_s: torch.Tensor, out_t: Outputs, index_t: torch.Tensor
    ) -> torch.Tensor:
        """Eq. (8) summed over the streams, with the current pseudo-labels."""
        levels = tuple(self.cfg.vca.vca_levels.split("+"))
        total = y_s.new_zeros((), dtype=torch.float32)
        for row, m in enumerate(self.cfg.streams):
            pair = (VideoFeatures(out_s[m].v, out_s[m].V), VideoFeatures(out_t[m].v, out_t[m].V))
            total = (
                total
                + vca(
                    pair,
                    y_s,
                    self.pseudo[row][index_t],
                    len(self.domains.classes),
                    levels=levels,
                    gamma_scope=self.cfg.vca.gamma_scope,
                ).total
            )
        return total

    # --- the adversarial loss in place of Eq. (8)
    # -----------------------------------------------------------------
    def make_discriminators(self) -> nn.ModuleDict:
        """A domain classifier for every stream and level, of MM-SADA's shape (the paper gives
        none).
        """
        levels = self.cfg.vca.vca_levels.split("+")
        with own_random_numbers(self.cfg.seed + 409):
            return nn.ModuleDict(
                {
                    m: nn.ModuleDict(
                        {level: DomainClassifier(self.cfg.model.feature_dim) for level in levels}
                    )
                    for m in self.cfg.streams
                }
            )

    def adversaries(self, out_s: Outputs, out_t: Outputs, reversal: float) -> torch.Tensor:
        """Domain losses of clips v and videos V, summed over levels and streams as Eq. (8) is."""
        feature = {"clip": "v", "video": "V"}
        return torch.stack(
            [
                adversary(
                    classifier,
                    getattr(out_s[m], feature[level]),
                    getattr(out_t[m], feature[level]),
                    reversal,
                )
                for m, levels in self.discriminators.items()
                for level, classifier in levels.items()
            ]
        ).sum()
