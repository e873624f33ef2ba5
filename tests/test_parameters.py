"""What a person writes into a parameters cell, loops over, or passes to papermill: it is used, or
refused by name.  Nothing is left out in silence.
"""

import ast
import enum
import json
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from nbkit.config import ROOT
from nbkit.config.localization import LocalizationConfig
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.train.steps import seed_of

Level = enum.IntEnum("Level", {"LOW": 1})


@pytest.mark.parametrize(
    "name, value, field, meant",
    [
        ("SEED", np.int64(3), "seed", 3),
        ("SEED", np.arange(5)[4], "seed", 4),
        ("SEED", np.array(3), "seed", 3),
        ("SEED", torch.tensor(3), "seed", 3),
        ("SEED", np.float64(3.0), "seed", 3),
        ("SPLIT_SEED", pd.Series([7, 8])[1], "split_seed", 8),
        ("ALPHA", np.float32(3), "alpha", 3.0),
        ("ALPHA", torch.tensor(0.5, requires_grad=True), "alpha", 0.5),
        ("LR", np.full(3, 1e-3), "lr", (1e-3,) * 3),
        ("LR", [np.float64(0.1), np.float32(0.5), 0.25], "lr", (0.1, 0.5, 0.25)),
        ("LR", pd.Series([0.1, 0.2, 0.3]), "lr", (0.1, 0.2, 0.3)),
        ("EPOCHS", range(1, 4), "epochs", (1, 2, 3)),
        ("EPOCHS", torch.arange(3), "epochs", (0, 1, 2)),
        ("PROGRESS", np.bool_(True), "progress", True),
        ("METHOD", np.str_("mmd"), "method", "mmd"),
        ("DATA_ROOT", Path("/datasets"), "data_root", "/datasets"),
        ("RUNS_DIR", Path("/scratch/runs"), "runs_dir", "/scratch/runs"),
        ("RUNS_DIR", Path("my runs"), "runs_dir", str(ROOT / "my runs")),
    ],
)
def test_values_of_other_libraries_are_used(name, value, field, meant):
    for cfg in (RunConfig.from_parameters({name: value}), RunConfig.make(**{field: value})):
        assert cfg.flat()[field] == meant
        assert cfg == RunConfig.make(**{field: meant})
        assert cfg.identity() == RunConfig.make(**{field: meant}).identity()
        json.dumps(cfg.flat())


def test_a_path_to_weights_is_used():
    made = RunConfig.from_parameters({"WEIGHTS": Path("/w.pt"), "BACKBONE": "i3d"})
    assert made.model.weights == "/w.pt"


@pytest.mark.parametrize(
    "names, words",
    [
        ({"alpha": 3.0}, "alpha: .* call it ALPHA"),
        ({"Seed": 3}, "call it SEED"),
        ({"sEED": np.int64(3)}, "call it SEED"),
        ({"runs_dir": Path("x")}, "call it RUNS_DIR"),
        ({"lr": np.ones(3)}, "call it LR"),
        ({"Data_Root": "x"}, "call it DATA_ROOT"),
        ({"ALFA": 3}, "did you mean ALPHA"),
        ({"ALFA": np.float32(3)}, "did you mean ALPHA"),
        ({"DATAROOT": Path("x")}, "did you mean DATA_ROOT"),
        ({"LRS": np.ones(3)}, "unknown parameter LRS"),
        ({"SEED": {3}}, "SEED is a set"),
        ({"SEED": object()}, "SEED is a object"),
        ({"SEED": Fraction(1, 3)}, "SEED is a Fraction"),
        ({"SEED": Level.LOW}, "SEED is a Level"),
        ({"METHOD": b"mmd"}, "METHOD is a bytes"),
        ({"METHOD": RunConfig}, "METHOD is a "),
        ({"LR": {"stage 2": 0.1}}, "LR is a dict"),
        ({"LR": [0.1, b"x", 0.1]}, "LR is a bytes"),
        ({"SEED": np.arange(2)}, "SEED"),
        ({"SEED": 3.5}, "SEED"),
        ({"SEED": np.nan}, "SEED"),
        ({"SEED": -1}, "SEED"),
        ({"SEED": 1_700_000_000_000}, "SEED"),
        ({"DEMO_SEED": -1}, "DEMO_SEED"),
        ({"ALPHA": np.inf}, "ALPHA"),
        ({"LR": [np.inf, 1, 1]}, "LR"),
        ({"LR": [0.1, 0.1]}, "LR"),
        ({"LR": [1e38] * 3}, "LR"),
        ({"WEIGHT_DECAY": 1e30}, "WEIGHT_DECAY"),
        ({"LR_STEPS": [-5]}, "LR_STEPS"),
        ({"THREADS": 0}, "THREADS"),
        ({"RUNS_DIR": ""}, "RUNS_DIR.*no path"),
        ({"RUNS_DIR": "~nobody-of-that-name/x"}, "RUNS_DIR.*no path"),
        ({"RUNS_DIR": "a\0b"}, "RUNS_DIR.*cannot be a path"),
        ({"DATA_ROOT": "x" * 300}, "DATA_ROOT.*cannot be a path"),
        ({"DATA_ROOT": f"{__file__}/x"}, "DATA_ROOT.*cannot be a path"),
        ({"BACKBONE": "i3d", "WEIGHTS": "x" * 5000}, "cannot be a path"),
        ({"BACKBONE": "i3d", "WEIGHTS": "a\0"}, "cannot be a path"),
        ({"BACKBONE": "small", "WEIGHTS": "/no/such.pt"}, "reads no file of weights"),
        ({"BACKBONE": "mobilenet_features", "WEIGHTS": "/w.pt"}, "reads no file of weights"),
        ({"SOURCE": "cam[1]"}, "SOURCE.*cannot be a name"),
        ({"SOURCE": "home/kitchen"}, "SOURCE.*cannot be a name"),
        ({"TARGET": "../../x"}, "TARGET.*cannot be a name"),
        ({"BENCHMARK": "../x"}, "BENCHMARK.*cannot be a name"),
        ({"BENCHMARK": ".hidden"}, "BENCHMARK.*cannot be a name"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(names, words):
    with pytest.raises(NbkitError, match=f"(?s){words}"):
        RunConfig.from_parameters(names)


@pytest.mark.parametrize(
    "names, words",
    [
        ({"KEYFRAME_WEIGHTS": "resnet50"}, "reads no weights"),
        ({"SIZE": "small", "TEMPORAL_WEIGHTS": Path("w.pt")}, "reads no weights"),
        ({"SIZE": "paper", "TEMPORAL_WEIGHTS": "~nobody-of-that-name/w"}, "no path"),
        ({"row": "all three"}, "call it ROW"),
        ({"STEPS": np.float64(2.5)}, "STEPS"),
    ],
)
def test_the_same_in_localization(names, words):
    with pytest.raises(NbkitError, match=f"(?s){words}"):
        LocalizationConfig.from_parameters(names)


def test_what_a_notebook_has_beside_its_parameters_is_left_alone():
    names = {
        "torch": torch,
        "flow": torch,  # a module that is called as a parameter
        "source": torch.zeros(3, 4),
        "frames": np.zeros((2, 3, 3)),
        "method": object(),
        "helper": 1,
        "ROWS": {"a": 1},
        "STCDA": type,
        "FEATURE": "rgb",
        "In": ["x = 1", "alpha = 3  # not papermill's"],
    }
    assert RunConfig.from_parameters(names, own=["FEATURE"]) == RunConfig.make()


@pytest.mark.parametrize("line", ["alfa = 3", "alpha = 3.0", "ALFA = {}", "seed = None"])
def test_a_name_that_papermill_injects_is_a_parameter_whatever_its_case(line):
    names = {"In": ["", "# Parameters\nSEED = 1\n" + line], "SEED": 1}
    exec(line, {}, names)
    with pytest.raises(NbkitError):
        RunConfig.from_parameters(names)


NOT_PLAIN = {"method", "source", "target", "batch", "frames", "flow", "clips"}  # objects, arrays


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("0*.ipynb")), ids=lambda p: p.stem
)
def test_a_notebooks_own_names_are_no_parameters(path):
    """Or its first cells could not be executed again in the same kernel."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    lines = [line for text in cells for line in text.splitlines() if not line.startswith("%")]
    made = LocalizationConfig if path.stem.startswith("05") else RunConfig
    stored = set()
    for statement in ast.parse("\n".join(lines)).body:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            comprehensions = [n for n in ast.walk(statement) if isinstance(n, ast.comprehension)]
            inner = {id(n) for c in comprehensions for n in ast.walk(c.target)}
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    if id(node) not in inner:
                        stored.add(node.id)
    lower = {name for name in stored if not name.isupper() and name.lower() in made.places()}
    in_own = {"runs_dir"} if path.stem == "08_tables" else set()  # the notebook says so
    assert lower - in_own <= NOT_PLAIN


@pytest.mark.parametrize("seed", [42, 20240101, 1_700_000_000, 2**31 - 1, 2**32 - 1])
def test_every_seed_that_is_accepted_fits_into_a_generator(seed):
    cfg = RunConfig.make(seed=seed)
    for stage, epoch in ((1, 0), (3, 399)):
        torch.manual_seed(seed_of(cfg, stage, epoch))
        torch.Generator().manual_seed(seed_of(cfg, stage, epoch) * 100_003 + 10_000)
    np.random.default_rng((cfg.seed + 7919, 1, 0))


def test_small_seeds_draw_as_they_always_did():
    assert seed_of(RunConfig.make(seed=5), 2, 7) == (5 * 1009 + 2) * 10_007 + 8


@pytest.mark.parametrize("method", ["source_only", "stcda"])
def test_a_date_is_a_seed(smoke, method):
    from nbkit.train.recognition import run

    assert run(smoke(method=method, seed=20240101)).metrics["videos"] > 0


def test_threads_are_pinned_and_others_make_another_run(smoke):
    from nbkit.train.recognition import prepare
    from nbkit.train.store import run_key

    one, two = smoke(), smoke(threads=2)
    assert run_key(one) != run_key(two) and one.part() != two.part()
    assert "threads" not in one.identity()
    before = torch.get_num_threads()
    try:
        for cfg in (two, one):
            prepare(cfg)
            assert torch.get_num_threads() == cfg.watch.threads
    finally:
        torch.set_num_threads(before)
