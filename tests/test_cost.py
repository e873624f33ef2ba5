"""The cost model: what it counts is what really runs, and what runs share is counted once."""

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.methods import METHODS
from nbkit.models.two_stream import make_encoder
from nbkit.tables.cost import clip_flops, cost, encoder_clips, plan, planned_videos
from nbkit.tables.cost_speed import Machine, gpu_speed

PAPER = {"profile": "paper", "benchmark": "ucf_hmdb_full", "source": "ucf", "target": "hmdb"}


def test_counted_operations_are_those_of_a_real_clip():
    cfg = RunConfig.make(profile="smoke")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        make_encoder("rgb", cfg).eval()(torch.rand(1, 3, 4, 32, 32))
    assert clip_flops("small", 4, 32, "rgb") == counter.get_total_flops() > 0


def test_clips_of_a_step():
    """Source only: half a batch, forward and backward (3). STCDA: both domains, and one negative of
    every clip.
    """
    pair = (np.arange(8), np.arange(8))
    plain, _ = plan(RunConfig.make(**PAPER, method="source_only"))
    assert encoder_clips(plain, 2, pair) == (8 * 3 * 2 * 3, 8 * 3)
    full, _ = plan(RunConfig.make(**PAPER))
    assert encoder_clips(full, 3, pair) == (16 * 3 * 2 * 3 * 2, 16 * 3)


def test_videos_come_from_the_manifest():
    cfg = RunConfig.make(**PAPER)
    assert planned_videos(cfg, load_manifest("ucf_hmdb_full"), "ucf", "train") == 1438


def test_rows_share_stages_and_the_paper_fits_no_afternoon():
    stcl, full = (cost(RunConfig.make(**PAPER, beta=b)) for b in (0.0, 0.5))
    assert [s.key for s in stcl.stages][:2] == [s.key for s in full.stages][:2]
    assert stcl.stages[2].key != full.stages[2].key
    steps = -(-1438 // 32)
    assert [s.steps for s in full.stages] == [300 * steps, 300 * steps, 400 * steps]
    frames = (1438 + 571 + 840 + 360) * load_manifest("ucf_hmdb_full").mean_frames
    assert full.cache_bytes == frames * 256**2 * 5


def test_a_gpu_is_an_estimate_until_it_is_measured(tmp_path):
    cfg = RunConfig.make(**PAPER)
    speed, source = gpu_speed(cfg, Machine("A100", 0.5), tmp_path)
    assert speed == 19.5e12 / 2 and "estimate" in source and "not measured" in source
    case = {
        "backbone": "bn_inception",
        "precision": "32-true",
        "flops_per_second": 1e12,
        "device": "Some GPU",
    }
    (tmp_path / "paper_profile.json").write_text(json.dumps({"cases": [case]}))
    assert gpu_speed(cfg, Machine(), tmp_path) == (1e12, "measured on Some GPU")
    with pytest.raises(NbkitError, match="'X1' is not one of"):
        gpu_speed(cfg.model_copy(update={"precision": "bf16-mixed"}), Machine("X1"), tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_planned(method):
    found = cost(RunConfig.make(profile="smoke", method=method))
    assert found.stages and all(s.flops > 0 for s in found.stages if s.steps)
