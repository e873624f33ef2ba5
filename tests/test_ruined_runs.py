"""A run that went wrong never counts as finished: absurd rates, NaN in a video, files that changed,
places that cannot be written, two processes at once.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import warnings

import pytest
import torch
from moving_squares import train as train_squares

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.files import atomically, held, write_csv, write_json
from nbkit.tables.results import results
from nbkit.tables.table import Table
from nbkit.train.checkpoint import read_checkpoint, stage_file, write_checkpoint
from nbkit.train.recognition import prepare, run
from nbkit.train.store import FILES, find_run, finish, finished, read_csv, read_run

ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0


# --- numbers that are none -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "how",
    [
        {"lr": (1e6,) * 3},
        {"lr": (1e6,) * 3, "method": "source_only"},
        {"lr": (1e6,) * 3, "epochs": (0, 0, 1), "method": "source_only"},
        {"lr": (1e6,) * 3, "optimizer": "adamw", "method": "mmd"},
        {"lr": (1e6,) * 3, "grad_clip": 1.0},
        {"alpha": 1e30, "grad_clip": 1.0},
        {"trade_off": 1e38, "method": "mmd", "grad_clip": 0.5},
        {"weight_decay": 1e6},
    ],
)
def test_a_diverged_run_stops_and_is_not_finished(tiny, how):
    cfg = tiny(**how)
    try:
        done = run(cfg)
    except NbkitError as error:
        assert "LR" in str(error) and find_run(cfg) is None
    else:  # nothing overflowed: then everything must be a number
        state = read_checkpoint(next((done.folder.parent / "stages").glob("*.pt")))
        assert all(torch.isfinite(value).all() for value in state["model"].values())


class Poisoned:
    """A data set one of whose videos holds NaN."""

    def __init__(self, data, number):
        self.data, self.number = data, number

    def __getattr__(self, name):
        return getattr(self.data, name)

    def __len__(self):
        return len(self.data)

    def _poison(self, batch):
        for values in batch.values():
            if values.is_floating_point():
                values[batch["index"] == self.number] = torch.nan
        return batch

    def raw(self, *args, **how):  # what training reads; floats pass as they are
        return self._poison(self.data.batch(*args, **how))


@pytest.mark.parametrize("method", ["source_only", "adabn", "stcda"])
@pytest.mark.parametrize("part", ["test", "target train", "source train"])
def test_a_video_that_is_not_a_number_is_named(tiny, monkeypatch, method, part):
    cfg = tiny(method=method, alpha=0.5)
    prepared = prepare(cfg)
    domains, training = prepared.domains, prepared.domains.training
    test, train, plain = dict(domains.test), dict(training.train), dict(training.plain)
    if part == "test":
        bad = test["target"] = Poisoned(test["target"], 3)
    else:
        side = part.split()[0]
        train[side], bad = Poisoned(train[side], 3), Poisoned(plain[side], 3)
        plain[side] = bad
    poisoned = type(domains)(
        type(training)(training.classes, train, plain), test, *[
            getattr(domains, name) for name in ("source_val", "data_key", "partial")
        ]
    )  # fmt: skip
    monkeypatch.setattr("nbkit.train.recognition.load_domains", lambda *_: poisoned)
    if method == "source_only" and part == "target train":
        return  # it never looks at the target
    with pytest.raises(NbkitError, match=bad.videos[3]):
        run(cfg)
    assert find_run(cfg) is None


def test_negatives_are_bounded_by_what_the_banks_hold(tiny):
    with pytest.raises(NbkitError, match="NCE_K=10000000: the banks hold"):
        prepare(tiny(nce_k=10**7))


@pytest.mark.parametrize(
    "how",
    [{"lr": 1e6}, {"lr": 1e6, "grad_clip": 1.0}, {"lam": 1e38, "row": "all three"}],
)
def test_a_diverged_detector_stops(squares, how):
    try:
        model, _ = train_squares(squares, **how)
    except NbkitError as error:
        assert "not finite" in str(error) and "LR" in str(error)
    else:
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())


# --- files of runs -------------------------------------------------------------------------------
@pytest.fixture
def done(tiny):
    return run(tiny(method="source_only"))


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "predictions.csv", "env.json"])
def test_a_changed_file_of_a_run_is_noticed_and_made_again(done, name):
    path = done.folder / name
    whole = path.read_bytes()
    digit = next(i for i, byte in enumerate(whole) if chr(byte) in "123456789")
    harms = [b"", whole[: len(whole) // 2], b"\0" * len(whole), b"\xff" + whole, b"[" * 5000]
    other = bytes([whole[digit] ^ 1])
    harms.append(whole[:digit] + other + whole[digit + 1 :])  # another digit, still well formed
    for harm in harms:
        path.write_bytes(harm)
        with pytest.warns(UserWarning, match="not the file of a finished run"):
            assert find_run(done.cfg) is None and not finished(done.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = run(done.cfg)
    assert again.metrics["accuracy"] == done.metrics["accuracy"]
    assert find_run(done.cfg) == done.folder


def test_a_missing_file_of_a_run_counts_like_a_damaged_one(done):
    (done.folder / "predictions.csv").unlink()
    with pytest.warns(UserWarning, match="predictions.csv"):
        assert find_run(done.cfg) is None


def test_random_harm_to_any_file_of_a_run_ends_in_our_words(done):
    """Bits, cuts and foreign lines: an error of ours, a warning, or the very same numbers."""
    rng, counted = random.Random(0), 0
    for name in [*FILES, "metrics.json"]:
        path = done.folder / name
        if not path.exists():
            continue
        whole = path.read_bytes()
        for _ in range(40):
            harm = bytearray(whole)
            for _ in range(rng.choice([1, 1, 3, 50])):
                harm[rng.randrange(len(harm))] = rng.randrange(256)
            path.write_bytes(harm[: rng.choice([None, None, rng.randrange(len(harm))])])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert bytes(path.read_bytes()) == whole or find_run(done.cfg) is None
            counted += 1
        path.write_bytes(whole)
    assert counted == 200 and read_run(done.cfg, done.folder).metrics == done.metrics


def test_runs_without_sums_still_count_and_their_gaps_are_named(done):
    metrics = json.loads((done.folder / "metrics.json").read_text())
    del metrics["sum"], metrics["files"]
    write_json(done.folder / "metrics.json", metrics)
    assert find_run(done.cfg) == done.folder
    one = {"name": "own", "set": {n.upper(): v for n, v in done.cfg.changed().items()}}
    ours = {k: v for k, v in one["set"].items() if k not in ("RUNS_DIR", "DATA_ROOT", "SEED")}
    lines = [{"name": "a"}]
    table = Table(
        name="own", title="t", rows=lines, columns=lines, seeds=[0],
        set={**ours, "PROFILE": "smoke", "DATA_ROOT": done.cfg.watch.data_root},
    )  # fmt: skip
    assert len(results(table, done.cfg.watch.runs_dir)) == 1
    del metrics["accuracy"]["fused"], metrics["videos"]
    write_json(done.folder / "metrics.json", metrics)
    with pytest.raises(NbkitError, match="metrics.json lacks something"):
        results(table, done.cfg.watch.runs_dir)


@pytest.mark.parametrize(
    "text",
    [b"", b"\0", b"a,b\n1", b"seconds\nx\n", b'seconds\n"1', b"seconds\n\xe9\n", b"a\n1,2,3\n1\n"],
)  # fmt: skip
def test_a_csv_that_is_none_of_ours_is_named(tmp_path, text):
    (tmp_path / "h.csv").write_bytes(text)
    with pytest.raises(NbkitError, match="h.csv: not a file as the suite writes it"):
        read_csv(tmp_path / "h.csv", ["seconds", "stage"], ["seconds"])


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"epoch": 1, "w": torch.arange(4096.0)})
    whole = path.read_bytes()
    at = whole.index(torch.arange(100.0, 110.0).numpy().tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(NbkitError, match="(?s)not a readable checkpoint.*Move the file away"):
        read_checkpoint(path)
    path.write_bytes(whole)
    assert read_checkpoint(path, "epoch")["epoch"] == 1
    with pytest.raises(NbkitError, match="lacks one of epoch, history"):
        read_checkpoint(path, "epoch", "history")


# --- places --------------------------------------------------------------------------------------
def writers(folder):
    """Everything that writes a file of a run below `folder`."""
    yield lambda: write_json(folder / "a.json", {"a": 1})
    yield lambda: write_csv(folder / "a.csv", [{"a": 1}])
    yield lambda: write_checkpoint(folder / "a.pt", {"w": torch.zeros(1 << 16)})
    yield lambda: atomically(folder / "a.txt", lambda part: part.write_text("x"))
    yield lambda: finish(folder, {"cell": "x"})
    yield lambda: held(folder / "a.lock", "x").__enter__()


def test_a_file_where_a_folder_should_be_is_named(tmp_path, smoke):
    (tmp_path / "runs").write_text("")
    for write in writers(tmp_path / "runs" / "deeper"):
        with pytest.raises(NbkitError, match="(?s)runs.*a file is where a folder should be"):
            write()
    cfg = smoke(runs_dir=str(tmp_path / "runs"))
    with pytest.raises(NbkitError, match="a file is where a folder should be"):
        with stage_file(cfg, "key"):
            pass


def test_a_folder_where_a_file_should_be_is_named(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(NbkitError, match="a.json: could not be written"):
        write_json(tmp_path / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(ROOT_USER, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for write in writers(tmp_path):
            with pytest.raises(NbkitError, match="look at the rights"):
                write()
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_disk_is_named(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("nbkit.files.os.replace", refuses)
    with pytest.raises(NbkitError, match="Read-only file system.*look at the rights"):
        write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path):
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
    try:
        for write in (
            lambda: write_json(tmp_path / "a.json", "x" * 10_000),
            lambda: write_csv(tmp_path / "a.csv", [{"a": "x" * 10_000}]),
            lambda: write_checkpoint(tmp_path / "a.pt", {"w": torch.zeros(1 << 16)}),
        ):
            with pytest.raises(NbkitError, match="the disk is full"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert not list(tmp_path.iterdir())


# --- two processes, and the number of threads ----------------------------------------------------
PROGRAM = """
import sys, json
from nbkit.config.recognition import RunConfig
from nbkit.train.recognition import run
done = run(RunConfig.make(**json.loads(sys.argv[1])))
print("done", json.dumps(done.metrics["accuracy"], sort_keys=True))
"""


def started(cfg, **environment):
    flat = {name: value for name, value in cfg.flat().items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(flat)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_and_other_machines_settings_give_one_result(smoke):
    """The same run twice at once, and with more threads than the run asks for."""
    shared = smoke(method="source_only", epochs=(0, 1, 1))
    other = smoke(method="source_only", epochs=(0, 1, 1))
    run(smoke(method="source_only", epochs=(0, 1, 0)))  # the data is there
    many = {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    programs = [started(shared), started(shared), started(other, **many)]
    said = [program.communicate(timeout=240) for program in programs]
    assert len({out[out.index("done") :] for out, _ in said}) == 1, said
    weights = []
    for cfg in (shared, other):
        files = sorted((ROOT / cfg.watch.runs_dir / "stages").glob("*.pt"))
        weights.append([read_checkpoint(path)["model"] for path in files])
    for first, second in zip(*weights, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
