"""Shared fixtures: a tiny rendered benchmark, written and cached once for the whole test run."""

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """`smoke(**fields)`: a smoke-profile configuration over shared data, with a run folder of its own unless given."""
    from nbkit.config import RunConfig

    data = tmp_path_factory.mktemp("data")

    def make(**fields):
        fields = {"profile": "smoke", "data_root": str(data), "runs_dir": str(tmp_path_factory.mktemp("runs")), **fields}
        return RunConfig.make(**fields)
    return make
