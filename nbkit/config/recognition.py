"""Configuration of a recognition run (STCDA and the methods that it is compared with)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, model_validator

from nbkit.config import RECOGNITION, Configuration, Section, Watch
from nbkit.files import user_path

# Backbones that start from random weights, or whose features have weights of their own.
WITHOUT_FILE = ("small", "mobilenet_features", "i3d_features")
Rate = Annotated[float, Field(gt=0, le=1e6)]
STREAMS = {"rgb": ("rgb",), "flow": ("flow",), "rgb+flow": ("rgb", "flow")}


class ClipData(Section):
    """Videos, clips and flow."""

    modalities: Literal["rgb", "flow", "rgb+flow"] = "rgb+flow"
    allow_partial: bool = Field(False, description="run on an incomplete copy; the result says so")
    demo_shift: float = Field(1.0, ge=0, le=1, description="of the demo renderer, 0: one domain")
    demo_seed: int = Field(0, ge=0, lt=2**32, description="of the demo renderer")
    demo_train: int = Field(40, ge=2, description="demo training videos per class and domain")
    demo_test: int = Field(40, ge=2, description="demo test videos per class and domain")
    clips: int = Field(3, ge=1, description="K, clips per video")
    frames: int = Field(16, ge=2, description="T, frames per clip")
    frame_stride: int = Field(1, ge=1)
    cache_size: int = Field(256, ge=16, description="short side of cached frames, pixels")
    crop: int = Field(224, ge=16, description="side of the square the network sees, pixels")
    flow: Literal["dis", "tvl1", "raft", "precomputed"] = "dis"
    flow_clip: float = Field(20.0, gt=0, description="largest flow, pixels; then scaled to [-1, 1]")


class Network(Section):
    """The two-stream network."""

    backbone: Literal[
        "small", "mobilenet_features", "i3d_features", "mobilenet", "bn_inception", "i3d"
    ] = "bn_inception"
    weights: str | None = Field(
        None,
        description="published weights by name or file; None: the backbone's own; random: none",
    )
    feature_dim: int = Field(512, ge=2, description="D, size of v and V")
    aggregation: Literal["mean", "concat_fc", "gru", "trn"] = Field(
        "gru", description="clips to video; trn is TA3N's, not STCDA's"
    )
    head: Literal["none", "mlp"] = Field("none", description="projection head before Eqs. (1)-(4)")
    cls_on: Literal["clip", "video", "both"] = Field(
        "both", description="what the classifier sees (Eq. 9)"
    )
    ce_reduction: Literal["sum", "mean"] = Field(
        "sum", description="Eq. (9) over the streams; sum: as Eqs. (4) and (8) are"
    )
    bn_mode: Literal["shared", "per_domain", "frozen", "group"] = "shared"
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _reads_its_weights(self) -> Network:
        if self.weights is not None:
            user_path(self.weights)
        if self.weights not in (None, "random") and self.backbone in WITHOUT_FILE:
            raise ValueError(
                f"WEIGHTS={self.weights!r}: the backbone {self.backbone!r} reads no file of "
                "weights; leave WEIGHTS out, or choose another BACKBONE"
            )
        return self


class STCL(Section):
    """Spatio-temporal contrastive learning, Eqs. (1)-(4)."""

    alpha: float = Field(2.0, ge=0, description="weight of Eq. (4)")
    alpha_schedule: Literal["constant", "decay"] = "constant"
    stcl_domains: Literal["both", "source", "target"] = "both"
    stcl_terms: Literal["clip+video", "clip", "video"] = "clip+video"
    tau: float = Field(0.07, gt=0, description="temperature")
    nce_k: int = Field(1024, ge=1, description="bank negatives per anchor")
    bank_momentum: float = Field(0.5, ge=0, lt=1)
    bank_init: Literal["random", "forward"] = Field(
        "random", description="forward: one pass fills the banks first"
    )
    multi_pos: Literal["sum_in_log", "mean_of_logs"] = "sum_in_log"
    single_view2: Literal["residual", "augment", "none"] = Field(
        "residual", description="second view of a single stream; residual: frame differences"
    )
    residual_scale: float = Field(
        0.5, gt=0, description="of the differences; 0.5 keeps every one in range"
    )
    normalise: Literal["none", "mean", "log_candidates"] = "none"
    clip_neg: Literal["spatial", "temporal", "both", "repeat"] = "both"
    video_neg: Literal["order+clip", "order", "clip"] = "order+clip"
    video_neg_modality: Literal["own", "other"] = "own"
    neg_grad: Literal["live", "bank"] = "live"


class VCA(Section):
    """Video-based contrastive alignment, Eqs. (5)-(8)."""

    beta: float = Field(0.5, ge=0, description="weight of Eq. (8)")
    beta_schedule: Literal["constant", "ramp"] = Field(
        "constant", description="ramp: from 0 to beta over stage 3"
    )
    alignment: Literal["vca", "adversarial"] = Field(
        "vca", description="what beta weighs; adversarial: Table 6b"
    )
    vca_levels: Literal["clip+video", "clip", "video"] = "clip+video"
    gamma_scope: Literal["classpair", "batch"] = "classpair"
    kmeans_centre: Literal["unit_sum", "mean", "sum_literal"] = "unit_sum"
    kmeans_iterations: int = Field(
        50, ge=0, description="centre updates at most; 50 reaches convergence"
    )
    pseudo_labels: Literal["updated", "fixed"] = "updated"
    fusion: Literal["fused", "per_modality"] = Field(
        "fused", description="who assigns pseudo-labels (Table 6b)"
    )
    cas_classes: int = Field(8, ge=1, description="classes per class-aware batch")
    cas_per_class: int = Field(4, ge=1, description="videos per class and domain in it")


class Comparison(Section):
    """The methods that STCDA is compared with."""

    trade_off: float = Field(1.0, ge=0, description="weight of a method's own terms")
    grl_max: float = Field(0.2, ge=0, description="gradient reversal at the end of its ramp")


class StageOptim(Section):
    """Optimisation.  Three values are those of stages 1, 2 and 3."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: tuple[Rate, Rate, Rate] = (0.01, 0.01, 0.001)
    epochs: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (300, 300, 400)
    lr_steps: tuple[NonNegativeInt, ...] = Field(
        (100, 200), description="epochs of a stage after which lr is divided by 10"
    )
    lr_schedule: Literal["step", "cosine"] = "step"
    weight_decay: float = Field(1e-7, ge=0, le=1e6)
    grad_clip: float = Field(0.0, ge=0, description="largest gradient norm; 0: off")
    batch: int = Field(64, ge=6, multiple_of=2, description="videos per step, half per domain")
    precision: Literal["32-true", "bf16-mixed"] = Field(
        "32-true", description="of the encoders in training; everything behind them is float32"
    )
    clips_at_once: int | None = Field(
        None,
        ge=1,
        description="clips that an encoder holds in memory, computed twice; None: all, once",
    )


class TestPart(Section):
    """How a finished network is read."""

    eval_split: Literal["test", "val"] = Field(
        "test", description="'val' while choosing settings, never in a table"
    )


class RecognitionWatch(Watch):
    """What recognition has beyond `Watch`."""

    workers: int = Field(2, ge=1, description="threads that decode and compute flow")
    eval_every: int = Field(
        0, ge=0, description="epochs of the last stage between diagnostic evaluations; 0: none"
    )
    shipped: bool = Field(
        True, description="notebooks read models/ where this machine has no run; tables train"
    )


class RunConfig(Configuration):
    """Everything that determines a recognition run.  See docs/PARAMETERS.md."""

    task: ClassVar[str] = "recognition"
    profiles: ClassVar[dict] = RECOGNITION

    method: str = Field("stcda", description="a line of nbkit/methods/__init__.py")
    data: ClipData = ClipData()
    model: Network = Network()
    stcl: STCL = STCL()
    vca: VCA = VCA()
    comparison: Comparison = Comparison()
    optim: StageOptim = StageOptim()
    evaluation: TestPart = TestPart()
    watch: RecognitionWatch = RecognitionWatch()

    @model_validator(mode="after")
    def _coherent(self) -> RunConfig:
        if self.data.crop > self.data.cache_size:
            raise ValueError(
                f"crop={self.data.crop} is larger than cache_size={self.data.cache_size}"
            )
        if self.model.aggregation == "mean" and self.stcl.video_neg == "order":
            raise ValueError(
                "aggregation='mean' does not see the order of clips: video_neg='order' equals "
                "the positive"
            )
        return self

    @property
    def streams(self) -> tuple[str, ...]:
        """('rgb',), ('flow',) or ('rgb', 'flow')."""
        return STREAMS[self.data.modalities]
