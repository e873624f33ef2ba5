"""The profiles for real data, on small pictures: one step of every stage with the printed optimiser
and rates.
"""

import pytest
import torch
from benchmark_trees import write_benchmark

from nbkit.config.recognition import RunConfig
from nbkit.methods.base import STAGES
from nbkit.train.recognition import prepare
from nbkit.train.steps import make_optimizer, run_epoch, set_lr

TERMS = {
    1: {"contrast"},
    2: {"ce", "contrast"},
    3: {"ce", "contrast", "vca", "intra", "inter"},
}
RATES = {1: 0.01, 2: 0.01, 3: 0.001}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    write_benchmark("ucf_hmdb_small", folder / "ucf_hmdb_small")
    return folder


@pytest.mark.parametrize(
    "profile, epochs, first_drop, backbone",
    [
        ("paper", (300, 300, 400), 100, "bn_inception"),
        ("short", (30, 30, 40), 10, "bn_inception"),
        ("features", (30, 30, 40), 10, "mobilenet_features"),
    ],
)
def test_one_step_of_every_stage(
    profile, epochs, first_drop, backbone, data, tmp_path, monkeypatch
):
    cfg = RunConfig.make(
        profile=profile,
        benchmark="ucf_hmdb_small",
        source="ucf",
        target="hmdb",
        allow_partial=True,
        data_root=str(data),
        runs_dir=str(tmp_path),
        weights="random",
        workers=1,
        cache_size=48,
        crop=32,
        frames=2,
        batch=6,
        cas_classes=2,
        cas_per_class=1,
        nce_k=4,
    )
    assert (cfg.optim.epochs, cfg.model.backbone, cfg.stcl.alpha, cfg.vca.beta) == (
        epochs,
        backbone,
        2.0,
        0.5,
    )
    fabric, method, _ = prepare(cfg)
    whole_epoch = type(method).batches
    monkeypatch.setattr(
        type(method), "batches", lambda self, stage, epoch: whole_epoch(self, stage, epoch)[:1]
    )
    for stage in STAGES:
        assert not method.skips(stage)
        module, optimizer = fabric.setup(method, make_optimizer(method, stage))
        group = optimizer.param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (RATES[stage], 0.9, 1e-7)
        set_lr(optimizer, cfg, stage, first_drop, 0.0)
        assert group["lr"] == pytest.approx(RATES[stage] / 10)
        method.start_stage(stage)
        found = method.start_epoch(stage, 0)
        before = {n: p.detach().clone() for n, p in method.model.named_parameters()}
        terms = run_epoch(fabric, module, method, optimizer, stage, 0)
        assert set(terms) == TERMS[stage] and ("kmeans_iterations" in found) == (stage == 3)
        moved = {
            n.split(".")[1]
            for n, p in method.model.named_parameters()
            if ".encoder." in n and not torch.equal(p, before[n])
        }
        assert moved == {"rgb", "flow"}
        assert all(torch.isfinite(p).all() for p in method.model.parameters())
