"""Shared fixtures: a tiny rendered benchmark, written and cached once for the whole test run."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from moving_squares import squares, squares_cache, squares_table  # noqa: F401 (fixtures)

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
# the graders of the exercises stand beside the notebooks, not in the package
sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))
LOADED: dict = {}
settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """`smoke(**fields)`: a smoke-profile configuration over shared data, with a run folder of its
    own unless given.
    """
    from nbkit.config.recognition import RunConfig

    data = tmp_path_factory.mktemp("data")

    def make(**fields):
        fields = {
            "profile": "smoke",
            "data_root": str(data),
            "runs_dir": str(tmp_path_factory.mktemp("runs")),
            **fields,
        }
        return RunConfig.make(**fields)

    return make


@pytest.fixture
def tiny(smoke, monkeypatch):
    """`tiny(**fields)`: a configuration of two short stages; the data of equal ones is loaded once
    for all tests.
    """
    from nbkit.train.domains import load_domains

    def load(cfg, labelled=("source",)):
        key = (cfg.watch.data_root, cfg.model.backbone, cfg.data.clips, labelled)
        if key not in LOADED:
            LOADED[key] = load_domains(cfg, labelled)
        return LOADED[key]

    monkeypatch.setattr("nbkit.train.recognition.load_domains", load)
    return lambda **fields: smoke(
        **{"epochs": (0, 1, 1), "demo_train": 2, "demo_test": 2, **fields}
    )
