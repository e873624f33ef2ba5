"""The configuration of a localization run.  Counts of anchors, proposals and RoIs are a size's (models/localizer_sizes.py)."""
from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nbkit.config import digest
from nbkit.errors import NbkitError
from nbkit.models.discriminators import check_adapt

#: what each size changes from the defaults below (those are the paper size's)
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"height": 64, "width": 64, "clip_len": 8, "clip_stride": 3, "key_stride": 2, "steps": 800, "batch": 8,
              "optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 20, "grad_clip": 10.0,
              "norm": "per_domain", "lam": 1.0, "beta": 0.05, "beta_ramp": True, "gamma": 3.0, "eval_stride": 4, "max_gap": 2,
              "min_tube_len": 3},
    "laptop": {"height": 160, "width": 213, "clip_len": 8, "clip_stride": 2, "key_stride": 2, "steps": 250, "batch": 2,
               "optimizer": "adamw", "lr": 5e-4, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 50,
               "grad_clip": 10.0, "lam": 1.0, "beta": 0.02, "beta_ramp": True, "gamma": 3.0, "min_tube_len": 8,
               "keyframe_weights": "imagenet", "temporal_weights": "imagenet"},
    "paper": {},
}


class LocalizationConfig(BaseModel):
    """Everything that determines a localization run. Unknown fields are refused.

    `lam` is the lambda of Eq. (7) and weighs features and discriminators alike; `beta` is the coefficient inside the
    gradient reversal and weighs only what reaches the features. Both are logged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["small", "laptop", "paper"] = "small"
    adapt: tuple[str, ...] = Field((), description="any of t_img, t_ins, s_img; empty: the baseline, or the oracle")
    seed: int = Field(0, ge=0)
    norm: Literal["group", "per_domain", "shared", "frozen"] = Field("group", description="of the small size")

    height: int = Field(240, ge=32, description="frame height in pixels")
    width: int = Field(320, ge=32)
    clip_len: int = Field(16, ge=1, description="T, frames around the key frame")
    clip_stride: int = Field(1, ge=1)
    key_stride: int = Field(4, ge=1, description="every so many frames are training key frames")
    background: bool = Field(False, description="train on source frames where nobody acts, too")
    augment: bool = True

    lam: float = Field(0.1, ge=0, description="lambda of Eq. (7)")
    beta: float = Field(1.0, ge=0, description="coefficient in the gradient reversal")
    beta_ramp: bool = Field(False, description="raise beta from 0 by 2 / (1 + exp(-10 p)) - 1")
    gamma: float = Field(5.0, ge=0, description="focusing of D_S")
    adv_reduction: Literal["mean", "sum"] = Field("mean", description="over positions and proposals in Eqs. (4)-(5)")
    ds_norm: Literal["gn", "bn"] = "gn"
    temporal_pool: Literal["before_roi", "after_tf2"] = "before_roi"
    tf1_end: Literal["Mixed_4e", "Mixed_4f"] = "Mixed_4e"
    tf2_pool5a: bool = False
    keyframe_weights: str | None = Field(None, description="a file, 'resnet50', or 'imagenet' (laptop); None: random")
    temporal_weights: str | None = Field(None, description="a file, 'i3d_rgb', or 'imagenet' (laptop); None: random")

    steps: int = Field(50_000, ge=1)
    batch: int = Field(1, ge=1, description="key frames of each domain in a step")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["step", "cosine"] = Field("step", description="step: divided by 10 at 5/7 of the steps")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    grad_clip: float = Field(0.0, ge=0, description="largest gradient norm of each branch for itself; 0: off")
    log_every: int = Field(10, ge=1)
    save_every: int = Field(200, ge=1)

    eval_batch: int = Field(16, ge=1)
    eval_stride: int = Field(1, ge=1, description="evaluate every so many frames of the test videos")
    eval_background: bool = Field(True, description="detections on frames where nobody acts are false positives")
    max_gap: int = Field(5, ge=0, description="evaluated frames without a match that a tube survives")
    min_tube_len: int = Field(15, ge=1, description="evaluated frames")
    tube_score_min: float = Field(0.005, ge=0)

    @field_validator("adapt", mode="before")
    @classmethod
    def _known_modules(cls, value):
        return check_adapt(value)

    @classmethod
    def make(cls, size: str = "small", **fields: Any) -> "LocalizationConfig":
        """The preset of `size`, then `fields`. Raises NbkitError naming the field."""
        if size not in PRESETS:
            raise NbkitError(f"size={size!r}: choose one of {', '.join(PRESETS)}")
        try:
            return cls(**{**PRESETS[size], **fields, "size": size})
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            raise NbkitError("the localization configuration is not valid\n  " + "\n  ".join(lines)) from None

    def key(self) -> str:
        """Hash of everything that determines the trained weights."""
        watching = {"log_every", "save_every", "eval_batch", "eval_stride", "eval_background", "max_gap",
                    "min_tube_len", "tube_score_min"}
        return digest(self.model_dump(mode="json", exclude=watching))
