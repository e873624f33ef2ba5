"""One validated configuration for every run, and the profiles it starts from.

A notebook's parameters cell holds upper-case literals; `RunConfig.from_parameters(globals())` turns them into a
`RunConfig`, refuses names it does not know, and fills the rest from the profile.  The same object drives the batch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, ValidationError, field_validator, model_validator

from nbkit.errors import NbkitError
from nbkit.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[1]  # the checkout: relative folders start here, wherever a kernel runs
STREAMS = {"rgb": ("rgb",), "flow": ("flow",), "rgb+flow": ("rgb", "flow")}
# Where a run's files go and how it is watched; none of these changes a number.
_NOT_IN_ID = {"data_root", "runs_dir", "device", "workers", "progress", "eval_every"}


class RunConfig(BaseModel):
    """Everything that determines a recognition run.  Unknown fields are refused.  See docs/PARAMETERS.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    # --- what to run -------------------------------------------------------------------------------------------
    profile: Literal["smoke", "demo", "laptop", "features", "short", "paper"] = "demo"
    benchmark: str = Field("demo", description="a file of data_manifests/, without .yaml")
    source: str = Field("studio", description="labelled domain")
    target: str = Field("street", description="unlabelled domain")
    method: str = Field("stcda", description="a file of nbkit/methods/")
    modalities: Literal["rgb", "flow", "rgb+flow"] = "rgb+flow"
    seed: int = Field(0, ge=0)
    split_seed: int = Field(0, ge=0, description="which grouped split, where the benchmark has no official one")
    eval_split: Literal["test", "val"] = Field("test", description="'val' while choosing settings, never in a table")

    # --- places and watching -----------------------------------------------------------------------------------
    data_root: str = "data"
    runs_dir: str = "runs"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    workers: int = Field(2, ge=1, description="processes that decode and compute flow")
    progress: bool = Field(False, description="a progress bar; one line an epoch otherwise")

    # --- demo renderer -----------------------------------------------------------------------------------------
    demo_shift: float = Field(1.0, ge=0, le=1)
    demo_seed: int = 0
    demo_train: int = Field(40, ge=2, description="training videos a class and domain")
    demo_test: int = Field(40, ge=2, description="test videos a class and domain")

    # --- data --------------------------------------------------------------------------------------------------
    clips: int = Field(3, ge=1, description="K, clips a video")
    frames: int = Field(16, ge=2, description="T, frames a clip")
    frame_stride: int = Field(1, ge=1)
    cache_size: int = Field(256, ge=16, description="short side of cached frames, pixels")
    crop: int = Field(224, ge=16, description="side of the square the network sees, pixels; 128 for features")
    flow: Literal["dis", "tvl1", "raft", "precomputed"] = "dis"
    allow_partial: bool = Field(False, description="run on what is there of an incomplete data set; the result says so")
    flow_clip: float = Field(20.0, gt=0, description="flow beyond this many pixels is clipped; then scaled to [-1, 1]")

    # --- model -------------------------------------------------------------------------------------------------
    backbone: Literal["small", "mobilenet_features", "mobilenet", "bn_inception", "i3d"] = "bn_inception"
    weights: str | None = Field(None, description="file of published weights; None: the backbone's own; random: none")
    feature_dim: int = Field(512, ge=2, description="D, size of v and V")
    aggregation: Literal["mean", "concat_fc", "gru", "trn"] = Field("gru", description="trn: of TA3N, not of STCDA")
    head: Literal["none", "mlp"] = Field("none", description="projection head in front of the contrastive terms")
    cls_on: Literal["clip", "video", "both"] = Field("both", description="what the classifier sees (Eq. 9)")
    bn_mode: Literal["shared", "per_domain", "frozen", "group"] = "shared"
    dropout: float = Field(0.0, ge=0, lt=1)

    # --- STCL (Eqs. 1-4) ---------------------------------------------------------------------------------------
    alpha: float = Field(2.0, ge=0)
    alpha_schedule: Literal["constant", "decay"] = "constant"
    stcl_domains: Literal["both", "source", "target"] = "both"
    stcl_terms: Literal["clip+video", "clip", "video"] = "clip+video"
    tau: float = Field(0.07, gt=0)
    nce_k: int = Field(1024, ge=1, description="bank negatives an anchor")
    bank_momentum: float = Field(0.5, ge=0, lt=1)
    bank_init: Literal["random", "forward"] = Field("random", description="forward: one pass fills the banks first")
    multi_pos: Literal["sum_in_log", "mean_of_logs"] = "sum_in_log"
    single_view2: Literal["augment", "none"] = Field("augment", description="view 2 when there is one modality")
    normalise: Literal["none", "mean", "log_candidates"] = "none"
    clip_neg: Literal["spatial", "temporal", "both", "repeat"] = "both"
    video_neg: Literal["order+clip", "order", "clip"] = "order+clip"
    video_neg_modality: Literal["own", "other"] = "own"
    neg_grad: Literal["live", "bank"] = "live"

    # --- VCA (Eqs. 5-8) ----------------------------------------------------------------------------------------
    beta: float = Field(0.5, ge=0)
    beta_schedule: Literal["constant", "ramp"] = Field("constant", description="ramp: from 0 to beta over stage 3")
    alignment: Literal["vca", "adversarial"] = Field("vca", description="what beta weighs; adversarial: Table 6b")
    vca_levels: Literal["clip+video", "clip", "video"] = "clip+video"
    gamma_scope: Literal["classpair", "batch"] = "classpair"
    kmeans_centre: Literal["unit_sum", "mean", "sum_literal"] = "unit_sum"
    kmeans_iterations: int = Field(50, ge=0, description="centre updates at most; 50 reaches convergence")
    pseudo_labels: Literal["updated", "fixed"] = "updated"
    fusion: Literal["fused", "per_modality"] = Field("fused", description="who assigns pseudo-labels (Table 6b)")
    cas_classes: int = Field(8, ge=1, description="classes in a class-aware batch")
    cas_per_class: int = Field(4, ge=1, description="videos a class and domain in it; more where classes are few")

    # --- other methods -----------------------------------------------------------------------------------------
    trade_off: float = Field(1.0, ge=0, description="weight of a comparison method's own terms")
    grl_max: float = Field(0.2, ge=0, description="gradient reversal coefficient at the end of its ramp")

    # --- optimisation ------------------------------------------------------------------------------------------
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.01, 0.01, 0.001)
    epochs: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (300, 300, 400)
    lr_steps: tuple[int, ...] = Field((100, 200), description="epochs of a stage after which lr is divided by 10")
    lr_schedule: Literal["step", "cosine"] = "step"
    weight_decay: float = Field(1e-7, ge=0)
    grad_clip: float = Field(0.0, ge=0, description="0: off")
    batch: int = Field(64, ge=6, description="videos a step, half of each domain; fewer would leave batches of one")
    eval_every: int = Field(0, ge=0, description="epochs of the last stage between diagnostic evaluations; 0: none")

    @field_validator("data_root", "runs_dir")
    @classmethod
    def _from_checkout(cls, folder: str) -> str:
        return str(ROOT / Path(folder).expanduser())  # an absolute folder stays what it is

    @model_validator(mode="after")
    def _coherent(self) -> "RunConfig":
        refuse_a_path(self.benchmark)
        if self.source == self.target:
            raise ValueError(f"source and target are both {self.source!r}; they must differ")
        if self.crop > self.cache_size:
            raise ValueError(f"crop={self.crop} is larger than cache_size={self.cache_size}")
        if self.aggregation == "mean" and self.video_neg == "order":
            raise ValueError("aggregation='mean' does not see the order of clips: video_neg='order' equals the positive")
        if self.batch % 2:
            raise ValueError(f"batch={self.batch} must be even: half source, half target")
        return self

    # --- construction ------------------------------------------------------------------------------------------
    @classmethod
    def make(cls, **fields: Any) -> "RunConfig":
        """Profile defaults, then `fields` (None: keep the profile's value).  Raises NbkitError with the way out."""
        profile = fields.get("profile") or "demo"
        if profile not in PROFILES:
            raise NbkitError(f"profile={profile!r} is not one of {', '.join(PROFILES)}")
        for name in fields:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {near[0].upper()}?" if near else ""
                raise NbkitError(f"unknown parameter {name.upper()}{hint} (known: see docs/PARAMETERS.md)")
        given = {k: v for k, v in fields.items() if v is not None}
        try:
            return cls(**{**PROFILES[profile], **given, "profile": profile})
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])).upper() or 'configuration'}: {e['msg']}" for e in error.errors()]
            raise NbkitError("the configuration is not valid\n  " + "\n  ".join(lines)) from None

    @classmethod
    def from_parameters(cls, names: dict[str, Any], **more: Any) -> "RunConfig":
        """Configuration from a notebook's upper-case names: `RunConfig.from_parameters(globals())`."""
        return cls.make(**{**notebook_parameters(names), **more})

    # --- identity ----------------------------------------------------------------------------------------------
    @property
    def streams(self) -> tuple[str, ...]:
        """('rgb',), ('flow',) or ('rgb', 'flow')."""
        return STREAMS[self.modalities]

    def identity(self) -> dict[str, Any]:
        """The fields that determine the numbers of a run."""
        fields = self.model_dump(mode="json")
        return {k: v for k, v in fields.items() if k not in _NOT_IN_ID and (k != "allow_partial" or v)}  # whole data: as ever

    def changed(self) -> dict[str, Any]:
        """The fields that differ from the profile's."""
        base = RunConfig(**{**PROFILES[self.profile], "profile": self.profile})
        return {k: v for k, v in self.model_dump().items() if v != getattr(base, k)}


def refuse_a_path(benchmark: str) -> None:
    """ValueError for a manifest's path where a run needs its name, which is part of folders and of the run's own name."""
    if Path(benchmark).suffix in (".yaml", ".yml"):
        raise ValueError(f"benchmark={benchmark!r}: put the file into data_manifests/ and give its name without .yaml")


def notebook_parameters(names: dict[str, Any]) -> dict[str, Any]:
    """The plain values among a notebook's upper-case names, in lower case."""
    plain = (str, int, float, bool, list, tuple, type(None))
    return {k.lower(): v for k, v in names.items() if k.isupper() and not k.startswith("_") and isinstance(v, plain)}


def digest(value: Any, length: int = 12) -> str:
    """Hexadecimal hash of a JSON-able value: the same value gives the same hash on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]
