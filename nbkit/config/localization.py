"""Configuration of a localization run (Agarwal et al., BMVC 2020).

Counts of anchors, proposals and RoIs are a size's: see nbkit/models/localizer_sizes.py.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nbkit.config import LOCALIZATION, Configuration, Section, Watch
from nbkit.files import Name, user_path

# Adaptation modules of a table row; the paper prints all but 'T_img + T_ins'.
ROWS: dict[str, tuple[str, ...]] = {
    "I3D+RPN": (),
    "T_img": ("t_img",),
    "T_ins": ("t_ins",),
    "S_img": ("s_img",),
    "T_img + T_ins": ("t_img", "t_ins"),
    "T_img + S_img": ("t_img", "s_img"),
    "T_ins + S_img": ("t_ins", "s_img"),
    "all three": ("t_img", "t_ins", "s_img"),
    "AdaBN": (),
    "oracle": (),
}


class FrameData(Section):
    """Frames, clips and boxes."""

    allow_partial: bool = Field(False, description="run on an incomplete copy; no table counts it")
    demo_train: int = Field(40, ge=1, description="demo training videos per class and domain")
    demo_test: int = Field(20, ge=2, description="demo test videos; half as many for validation")
    height: int = Field(240, ge=32, description="frame height, pixels")
    width: int = Field(320, ge=32)
    clip_len: int = Field(16, ge=1, description="T, frames around the key frame")
    clip_stride: int = Field(1, ge=1)
    key_stride: int = Field(4, ge=1, description="every so many frames are training key frames")
    background: bool = Field(False, description="train on source frames where nobody acts, too")
    augment: bool = True


class Detector(Section):
    """The two-branch detector."""

    size: Literal["small", "laptop", "laptop_i3d", "paper"] = "small"
    norm: Literal["group", "per_domain", "frozen"] = Field("group", description="of the small size")
    temporal_pool: Literal["before_roi", "after_tf2"] = "before_roi"
    tf1_end: Literal["Mixed_4e", "Mixed_4f"] = "Mixed_4e"
    tf2_pool5a: bool = False
    keyframe_weights: str | None = Field(
        None, description="a file, 'resnet50', or 'imagenet' (laptop); None: random"
    )
    temporal_weights: str | None = Field(
        None,
        description="a file, 'i3d_rgb', 'kinetics400' or (laptop) 'imagenet'; None: random",
    )

    @model_validator(mode="after")
    def _reads_its_weights(self) -> Detector:
        given = [
            file for file in (self.keyframe_weights, self.temporal_weights) if file is not None
        ]
        for file in given:
            user_path(file)
        if given and self.size == "small":
            raise ValueError(
                f"KEYFRAME_WEIGHTS or TEMPORAL_WEIGHTS={given[0]!r}: the detector of SIZE 'small' "
                "reads no weights; leave them out, or choose another SIZE"
            )
        if self.size == "laptop_i3d" and self.temporal_weights is None:
            raise ValueError(
                "SIZE 'laptop_i3d' freezes most of I3D: give TEMPORAL_WEIGHTS, e.g. 'kinetics400'"
            )
        return self


class Adaptation(Section):
    """The adversarial modules, Eqs. (4)-(7).

    `lam` weighs features and discriminators alike; `beta` is the coefficient inside the gradient
    reversal and weighs only what reaches the features.
    """

    lam: float = Field(0.1, ge=0, description="lambda of Eq. (7)")
    beta: float = Field(1.0, ge=0, description="coefficient in the gradient reversal")
    beta_ramp: bool = Field(False, description="raise beta from 0 by 2 / (1 + exp(-10 p)) - 1")
    gamma: float = Field(5.0, ge=0, description="focusing of D_S")
    adv_reduction: Literal["mean", "sum"] = Field(
        "mean", description="over positions and proposals in Eqs. (4)-(5)"
    )
    ds_norm: Literal["gn", "bn"] = "gn"


class StepOptim(Section):
    """Optimisation."""

    steps: int = Field(50_000, ge=1)
    batch: int = Field(1, ge=1, description="key frames of each domain in a step")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(1e-3, gt=0, le=1e6)
    weight_decay: float = Field(5e-4, ge=0, le=1e6)
    schedule: Literal["step", "cosine"] = Field(
        "step", description="step: divided by 10 at 5/7 of the steps"
    )
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    source_steps: int = Field(
        0,
        ge=0,
        description="first steps without adaptation, trained once for all rows; NORM='frozen' "
        "keeps their statistics",
    )
    grad_clip: float = Field(0.0, ge=0, description="largest gradient norm per branch; 0: off")


class TubeEvaluation(Section):
    """Which frames are evaluated, and how detections become tubes."""

    eval_split: Literal["test", "val"] = Field(
        "test", description="'val' while choosing settings, never in a table"
    )
    eval_stride: int = Field(1, ge=1, description="evaluate every so many frames")
    eval_background: bool = Field(
        True, description="detections on frames where nobody acts are false positives"
    )
    max_gap: int = Field(5, ge=0, description="evaluated frames without a match a tube survives")
    min_tube_len: int = Field(15, ge=1, description="evaluated frames")
    tube_score_min: float = Field(0.005, ge=0)


class LocalizationWatch(Watch):
    """What localization has beyond `Watch`."""

    log_every: int = Field(10, ge=1, description="steps between two lines of the history")
    save_every: int = Field(200, ge=1, description="steps between two checkpoints")
    eval_batch: int = Field(16, ge=1, description="frames that are evaluated together")


class LocalizationConfig(Configuration):
    """Everything that determines a localization run.  See docs/PARAMETERS.md."""

    task: ClassVar[str] = "localization"
    profiles: ClassVar[dict] = LOCALIZATION

    benchmark: Name = Field("demo_untrimmed", description="or a localization manifest")
    row: str = Field("all three", description="a row of the paper's tables, see ROWS")
    data: FrameData = FrameData()
    detector: Detector = Detector()
    adaptation: Adaptation = Adaptation()
    optim: StepOptim = StepOptim()
    evaluation: TubeEvaluation = TubeEvaluation()
    watch: LocalizationWatch = LocalizationWatch()

    @model_validator(mode="after")
    def _coherent(self) -> LocalizationConfig:
        if self.row not in ROWS:
            raise ValueError(f"row={self.row!r}: choose one of {', '.join(ROWS)}")
        clip = self.data.clip_len, self.data.clip_stride
        if self.detector.size == "laptop_i3d" and (clip[0] % 4 or clip[1] != 1):
            raise ValueError(
                f"CLIP_LEN={clip[0]}, CLIP_STRIDE={clip[1]}: SIZE 'laptop_i3d' reads one map for "
                "every four frames; give a multiple of 4 and 1"
            )
        if self.row == "AdaBN" and self.detector.norm == "group":
            raise ValueError("AdaBN re-estimates batch statistics: norm='group' has none")
        if self.detector.norm == "frozen" and not self.optim.source_steps:
            raise ValueError("norm='frozen' keeps the statistics of SOURCE_STEPS steps: set them")
        if self.optim.source_steps >= self.optim.steps:
            raise ValueError("source_steps must be below steps: lower SOURCE_STEPS, or raise STEPS")
        return self

    @property
    def modules(self) -> tuple[str, ...]:
        """Adaptation modules of the row, any of t_img, t_ins, s_img."""
        return ROWS[self.row]
