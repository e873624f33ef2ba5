"""STCDA (Song et al., CVPR 2021): cross-entropy, contrast (Eqs. 1-4) and alignment (Eqs. 5-8).

beta = 0 is the paper's "STCL" row, alpha = 0 its "VCA" row, both 0 its "Source only"; alignment =
"adversarial" is its row "w/ adversarial loss" (Table 6b), whose form the paper does not give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nbkit.losses.adversarial import ramp
from nbkit.losses.alignment import VideoFeatures, vca
from nbkit.losses.domain import adversary
from nbkit.losses.objective import total_loss
from nbkit.losses.pseudo_labels import kmeans_pseudo_labels
from nbkit.methods.base import (
    Batch,
    Loss,
    Method,
    Outputs,
    Step,
    Terms,
    TrainingData,
    own_random_numbers,
)
from nbkit.methods.batches import class_aware_batches, estimate_statistics, extract
from nbkit.methods.contrast import Contrast
from nbkit.models.clip_heads import DomainClassifier

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig


class STCDA(Method):
    """Eq. (10).  Stage 1: contrast only; stage 2: + cross-entropy; stage 3: + alignment."""

    def __init__(self, cfg: RunConfig, data: TrainingData):
        super().__init__(cfg, data)
        self.contrast = Contrast(cfg, data) if cfg.stcl.alpha > 0 else None
        # (M, N_t), one row per stream
        pseudo = torch.full((len(cfg.streams), len(data.train["target"])), -1)
        self.register_buffer("pseudo", pseudo)
        self.discriminators = None
        if cfg.vca.beta > 0 and cfg.vca.alignment == "adversarial":
            self.discriminators = self.make_discriminators()
        self.uses_target = cfg.stcl.alpha > 0 or cfg.vca.beta > 0
        if not self.uses_target:
            self.statistics = "source"

    # --- stages ----------------------------------------------------------------------------------
    def active(self, stage: int) -> bool:
        """Whether D_VCA, or the adversary in its place, is part of this stage's objective."""
        return stage == 3 and self.cfg.vca.beta > 0

    def clusters(self, stage: int) -> bool:
        """Whether the stage needs pseudo-labels."""
        return self.active(stage) and self.discriminators is None

    def plain(self, stage: int) -> bool:
        return self.contrast is None and not self.active(stage)

    def sections(self, stage: int) -> tuple[str, ...]:
        found = []
        if self.contrast is not None:
            found.append("stcl")
        if self.active(stage):
            found.append("vca")
            if self.discriminators is not None:  # their reversal has a ramp up to grl_max
                found.append("comparison")
        return tuple(found)

    def views(self, stage: int) -> dict[str, Any]:
        if self.contrast is None:
            return {}
        kind = self.cfg.stcl.single_view2 if self.contrast.alone else "none"
        return {"negatives": True, "second_view": kind}

    def skips(self, stage: int) -> bool:
        return stage == 1 and self.contrast is None

    def start_stage(self, stage: int) -> None:
        if self.contrast is not None and not bool(self.contrast.ready):
            self.contrast.fill_banks(self.model, self.data, self.views(stage))

    # --- objective -------------------------------------------------------------------------------
    def forward(self, source: Batch, target: Batch | None, step: Step) -> Loss:
        """Eq. (10), with the terms that the stage has."""
        terms: Terms = {}
        out_s, out_t = self.outputs(source, "source"), None
        if step.stage > 1:
            terms["ce"] = self.reduced(self.supervised(out_s, source["label"]))
        if self.active(step.stage) or "target" in self.contrasted():
            out_t = self.outputs(target, "target")
        if self.contrast is not None:
            sides = {"source": (source, out_s), "target": (target, out_t)}
            chosen = {domain: sides[domain] for domain in self.contrasted()}
            terms["contrast"] = self.contrast(self.model, chosen, step.generator)
        if self.clusters(step.stage):
            terms |= self.alignment(out_s, source["label"], out_t, target["index"])
        elif self.active(step.stage):
            terms["domain"] = self.adversaries(out_s, out_t, step)
        loss = total_loss(
            terms.get("ce", 0.0),
            terms.get("contrast", 0.0),
            terms.get("vca", terms.get("domain", 0.0)),
            self.alpha(step),
            self.beta(step),
        )
        return loss, terms

    def contrasted(self) -> tuple[str, ...]:
        """The domains whose videos are contrasted."""
        return () if self.contrast is None else self.contrast.active

    def alpha(self, step: Step) -> float:
        """Weight of Eq. (4): 1 in stage 1, which minimises Eq. (4) itself.

        It falls to zero over stage 3 with alpha_schedule='decay'.
        """
        if self.contrast is None:
            return 0.0
        if step.stage == 1:
            return 1.0
        if self.cfg.stcl.alpha_schedule == "decay" and step.stage == 3:
            return self.cfg.stcl.alpha * (1.0 - step.progress)
        return self.cfg.stcl.alpha

    def beta(self, step: Step) -> float:
        """Weight of Eq. (8); it grows from zero over stage 3 with beta_schedule='ramp'.

        Early pseudo-labels are the least sure.
        """
        if not self.active(step.stage):
            return 0.0
        if self.cfg.vca.beta_schedule == "ramp":
            return self.cfg.vca.beta * step.progress
        return self.cfg.vca.beta

    def alignment(self, out_s: Outputs, y_s: Tensor, out_t: Outputs, index_t: Tensor) -> Terms:
        """Eq. (8) and its two parts, summed over the streams, with the current pseudo-labels."""
        parts = []
        for row, m in enumerate(self.cfg.streams):
            source = VideoFeatures(out_s[m].v, out_s[m].V)
            target = VideoFeatures(out_t[m].v, out_t[m].V)
            found = vca(
                (source, target),
                y_s,
                self.pseudo[row][index_t],
                len(self.data.classes),
                levels=tuple(self.cfg.vca.vca_levels.split("+")),
                gamma_scope=self.cfg.vca.gamma_scope,
            )
            parts.append(found)
        total, intra, inter = (torch.stack(values).sum() for values in zip(*parts))
        return {"vca": total, "intra": intra, "inter": inter}

    # --- pseudo-labels and batches ---------------------------------------------------------------
    def start_epoch(self, stage: int, epoch: int) -> dict[str, float]:
        if not self.clusters(stage) or (epoch > 0 and self.cfg.vca.pseudo_labels == "fixed"):
            return {}
        return self.cluster()

    def cluster(self) -> dict[str, float]:
        """K-means pseudo-labels of the target training videos, from the network as it stands."""
        cfg, plain, device = self.cfg.vca, self.data.plain, self.pseudo.device
        if self.cfg.model.bn_mode == "per_domain":  # the target's may never have been filled before
            estimate_statistics(self, plain["target"], "target", device)
        source = extract(self, plain["source"], "source", device)
        target = extract(self, plain["target"], "target", device)
        found = kmeans_pseudo_labels(
            source.V,
            source.labels,
            target.V,
            len(self.data.classes),
            centre=cfg.kmeans_centre,
            fusion=cfg.fusion,
            iterations=cfg.kmeans_iterations,
            fixed=cfg.pseudo_labels == "fixed",
        )
        labels = found.labels
        if cfg.fusion == "fused":
            labels = dict.fromkeys(self.cfg.streams, labels)
        new = torch.stack([labels[m] for m in self.cfg.streams]).to(device)  # (M, N_t)
        changed = (new != self.pseudo).float().mean()
        self.pseudo.copy_(new)
        return {"pseudo_changed": float(changed), "kmeans_iterations": float(found.iterations)}

    def per_class(self) -> int:
        """Videos per class: `cas_per_class`, more where there are fewer classes than `cas_classes`.

        The batch keeps its size.
        """
        cfg = self.cfg.vca
        return cfg.cas_classes * cfg.cas_per_class // min(cfg.cas_classes, len(self.data.classes))

    def batches(self, stage: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Class-aware pairs while D_VCA is on: random ones leave many class pairs empty.

        Without fusion the streams have labels of their own: the steps take turns, so that no
        stream is favoured.
        """
        random = super().batches(stage, epoch)
        if not self.clusters(stage):
            return random
        by_stream = [
            class_aware_batches(
                self.data.train["source"].labels,
                labels.cpu().numpy(),
                self.cfg.vca.cas_classes,
                self.per_class(),
                len(random),
                self.cfg.seed,
                epoch,
            )
            for labels in self.pseudo
        ]
        return [by_stream[step % len(by_stream)][step] for step in range(len(random))]

    # --- the adversarial loss in place of Eq. (8) ------------------------------------------------
    def make_discriminators(self) -> nn.ModuleDict:
        """Domain classifiers per stream and level, of MM-SADA's shape (the paper gives none)."""
        dim, found = self.cfg.model.feature_dim, nn.ModuleDict()
        with own_random_numbers(self.cfg.seed + 409):
            for m in self.cfg.streams:
                levels = self.cfg.vca.vca_levels.split("+")
                found[m] = nn.ModuleDict({level: DomainClassifier(dim) for level in levels})
        return found

    def adversaries(self, out_s: Outputs, out_t: Outputs, step: Step) -> Tensor:
        """Domain losses of clips v and videos V, summed over levels and streams as Eq. (8) is."""
        reversal = self.cfg.comparison.grl_max * ramp(step.progress)
        feature = {"clip": "v", "video": "V"}
        terms = []
        for m, levels in self.discriminators.items():
            for level, classify in levels.items():
                name = feature[level]
                of_source, of_target = getattr(out_s[m], name), getattr(out_t[m], name)
                terms.append(adversary(classify, of_source, of_target, reversal))
        return torch.stack(terms).sum()
