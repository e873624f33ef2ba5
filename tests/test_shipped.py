"""models/: the networks that come with the repository give their runs' answers, and only where
configuration and data are the same; a damaged file is named and not used.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save

import nbkit.train.recognition as recognition
import nbkit.train.shipped as shipped
from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.train.recognition import load_or_train, prepare, run, stage_key, trained_method
from nbkit.train.selection import target_features
from nbkit.train.shipped import MODELS, run_or_shipped, shipped_weights
from nbkit.train.store import find_run, read_csv, read_metrics, run_key
from tools.models import COLUMN, PAGE, ROWS, cells, page, shipped_folder

DATA = ROOT / "data" / "demo"
rendered = pytest.mark.skipif(not DATA.exists(), reason="the demo's videos are not rendered here")
CELLS = {cell.row: cell for cell in cells()}


def networks():
    return json.loads((MODELS / "networks.json").read_text())


def no_training(monkeypatch):
    def fail(*words):
        pytest.fail("trained")

    monkeypatch.setattr(recognition, "train", fail)


# --- the folder ----------------------------------------------------------------------------------
def test_every_file_has_its_checksum_and_all_are_small():
    names = {network["name"] for network in networks().values()}
    assert names == {path.stem for path in MODELS.glob("*.safetensors")}
    for network in networks().values():
        content = (MODELS / f"{network['name']}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == network["sha256"]
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 12e6


def test_the_cards_are_what_the_generator_writes():
    assert PAGE.read_text() == page()
    assert all(f"| {row} |" in PAGE.read_text() for row in ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_the_stored_run_is_whole_and_its_accuracy_is_that_of_its_predictions(row):
    folder = shipped_folder(CELLS[row])
    metrics = read_metrics(folder)
    assert metrics["cell"] == run_key(CELLS[row].config()) == CELLS[row].key
    predictions = read_csv(folder / "predictions.csv")
    for name, accuracy in metrics["accuracy"].items():
        right = 100 * (predictions[name] == predictions["label"]).mean()
        assert accuracy == pytest.approx(right)
    assert not json.loads((folder / "env.json").read_text())["commit"].endswith("+")
    assert json.loads((folder / "config.json").read_text())["data_root"] == "data"


# --- the networks on the demo's videos -----------------------------------------------------------
@rendered
@pytest.mark.parametrize("row", ROWS)
def test_a_shipped_network_gives_each_video_the_class_of_its_run(row, tmp_path, monkeypatch):
    no_training(monkeypatch)
    cfg = CELLS[row].config(runs_dir=str(tmp_path))
    prepared = prepare(cfg)
    load_or_train(prepared)
    assert prepared.method.weights_from.startswith("shipped: models/")
    found = target_features(prepared.method, prepared.domains, prepared.fabric.device)
    known = run_or_shipped(cfg, prepared.domains.data_key).predictions
    assert list(known["video"]) == list(prepared.domains.test["target"].videos)
    for name, probs in found.probs.items():
        assert np.array_equal(probs.argmax(-1).numpy(), known[name]), name
    assert find_run(cfg) is None  # tables do not see it


@rendered
def test_another_configuration_or_other_data_finds_nothing(tmp_path):
    cfg = CELLS["STCL+VCA"].config(runs_dir=str(tmp_path))
    _, method, domains = prepare(cfg)
    for key in (
        stage_key(method, 3, "other videos"),
        stage_key(prepare(cfg.replace(beta=0.3)).method, 3, domains.data_key),
        stage_key(prepare(cfg.replace(seed=1)).method, 3, domains.data_key),
    ):
        assert key not in networks() and shipped_weights(key) is None
    assert shipped_weights(stage_key(method, 3, domains.data_key))
    assert shipped_weights(stage_key(method, 2, domains.data_key))  # for notebook 04
    assert run_or_shipped(cfg, domains.data_key) is not None
    assert run_or_shipped(cfg, "other videos") is None
    assert run_or_shipped(cfg.replace(beta=0.3), domains.data_key) is None
    assert run_or_shipped(cfg.replace(shipped=False), domains.data_key) is None


# --- the mechanism, on tiny networks -------------------------------------------------------------
@pytest.fixture
def tiny_models(tiny, tmp_path, monkeypatch):
    """A models/ of one tiny network, all of whose weights are 0.25; its key and configuration."""
    monkeypatch.setattr(shipped, "MODELS", tmp_path)
    cfg = tiny(method="source_only")
    _, method, domains = prepare(cfg)
    key = stage_key(method, 3, domains.data_key)
    state = method.model.state_dict()
    write(tmp_path, key, {name: torch.full_like(value, 0.25) for name, value in state.items()})
    return tmp_path, key, cfg


def write(folder, key, state):
    content = save({name: value.half().contiguous() for name, value in state.items()})
    (folder / "one.safetensors").write_bytes(content)
    line = {"name": "one", "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "networks.json").write_text(json.dumps({key: line}))


def test_it_is_read_where_there_is_no_run_and_only_there(tiny_models, monkeypatch):
    _, _, cfg = tiny_models
    with monkeypatch.context() as only_here:
        no_training(only_here)
        method = trained_method(cfg).method
        assert method.weights_from == "shipped: models/one.safetensors"
        weight = method.model.state_dict()["streams.rgb.classifier.weight"]
        assert weight.dtype == torch.float32 and (weight == 0.25).all()
    assert trained_method(cfg.replace(shipped=False)).method.weights_from == "own run"
    method = trained_method(cfg).method  # now there is one
    assert method.weights_from == "own run"
    assert (method.model.state_dict()["streams.rgb.classifier.weight"] != 0.25).any()


def test_run_trains(tiny_models):
    _, _, cfg = tiny_models
    assert len(run(cfg).history) == sum(cfg.optim.epochs)


def test_another_seed_trains(tiny_models):
    _, _, cfg = tiny_models
    assert trained_method(cfg.replace(seed=7)).method.weights_from == "own run"


@pytest.mark.parametrize("damage", ["cut", "changed", "absent", "empty", "index"])
def test_a_damaged_file_is_named_and_not_used(damage, tiny_models):
    folder, key, cfg = tiny_models
    path = folder / "one.safetensors"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "absent":
        path.unlink()
    else:
        path = folder / "networks.json"
        path.write_text('{"' + key + '": {"name": "../../one", "sha256": "0"}}')
    with pytest.warns(UserWarning, match=path.name):
        assert shipped_weights(key) is None
    with pytest.warns(UserWarning, match="not used as a shipped network"):
        assert trained_method(cfg).method.weights_from == "own run"


def test_a_file_that_is_no_safetensors_is_not_used(tiny_models):
    folder, key, _ = tiny_models
    for content in (b"no", b"\xff" * 64, b"\x80\x02}q\x00."):  # the last is a pickle
        (folder / "one.safetensors").write_bytes(content)
        line = {"name": "one", "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "networks.json").write_text(json.dumps({key: line}))
        with pytest.warns(UserWarning, match="one.safetensors"):
            assert shipped_weights(key) is None


def test_weights_of_another_network_are_refused(tiny_models):
    folder, key, cfg = tiny_models
    write(folder, key, {"streams.rgb.classifier.weight": torch.zeros(3, 3)})
    with pytest.raises(NbkitError, match="one.safetensors: weights of another network"):
        trained_method(cfg)


def test_without_the_folder_nothing_is_shipped(tiny_models):
    folder, key, cfg = tiny_models
    shutil.rmtree(folder)
    assert shipped_weights(key) is None and run_or_shipped(cfg, "any data") is None


def test_it_is_for_the_first_seed_of_one_direction():
    assert {cell.column for cell in CELLS.values()} == {COLUMN} and RunConfig.make().watch.shipped
    assert {cell.seed for cell in CELLS.values()} == {0} and list(CELLS) == list(ROWS)
