"""Broken or misplaced data given to `run`: named, with the way out, and nothing is trained or
cached.
"""

import pickle
import shutil

import pytest
from benchmark_trees import write_benchmark
from fake_trees import write_text

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.train.recognition import run

UCF, HMDB = "ucf101/UCF-101", "hmdb51"
GOLF = f"{UCF}/GolfSwing/v_GolfSwing_g01_c01.avi"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_benchmark("ucf_hmdb_small", tmp_path_factory.mktemp("whole") / "ucf_hmdb_small")


def refused(folder, allow_partial, benchmark="ucf_hmdb_small", source="ucf", target="hmdb"):
    """The message of a run over `folder`/<benchmark>; it must leave neither a checkpoint nor a
    cache.
    """
    cfg = RunConfig.make(
        profile="smoke",
        benchmark=benchmark,
        source=source,
        target=target,
        data_root=str(folder),
        workers=1,
        runs_dir=str(folder / "runs"),
        allow_partial=allow_partial,
        batch=8,
        cas_classes=2,
        nce_k=4,
    )
    with pytest.raises(NbkitError) as error:
        run(cfg)
    assert not (folder / "runs").exists() and not list(folder.glob("cache/videos-*"))
    return str(error.value)


def no_folder(root):
    shutil.rmtree(root)


def empty(root):
    shutil.rmtree(root)
    root.mkdir()


def one_too_deep(root):
    (root / "ucf101").rename(root / "my_videos")


def misspelt(root):
    (root / UCF / "GolfSwing").rename(root / UCF / "Golf_Swing")


def absent(root):
    (root / GOLF).unlink()


def one_domain(root):
    shutil.rmtree(root / HMDB)


@pytest.mark.parametrize(
    "harm, words",
    [
        (no_folder, ["no videos found", "folder missing", "ucf_hmdb_small"]),
        (empty, ["no videos found", "the folder is empty", "Download it from"]),
        (one_too_deep, ["dataset not found: UCF101", "it seems to be in", "my_videos"]),
        (misspelt, ["found 'Golf_Swing': rename it to 'GolfSwing'"]),
        (absent, ["listed but absent", "v_GolfSwing_g01_c01.avi", "extract the archive again"]),
        (one_domain, ["[hmdb] dataset not found: HMDB51"]),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_what_is_missing_is_named(harm, words, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "ucf_hmdb_small")
    harm(root)
    text = refused(tmp_path, allow_partial=False)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "harm, words",
    [
        (empty, "no videos found"),
        (one_domain, "hmdb train: no videos. Run `nbkit check-data`"),
        (misspelt, "ucf train: no video of class golf. Run `nbkit check-data`"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_partial_data_has_limits(harm, words, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "ucf_hmdb_small")
    harm(root)
    assert words in refused(tmp_path, allow_partial=True)


def test_all_broken_videos_are_named_at_once(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "ucf_hmdb_small")
    data = (root / GOLF).read_bytes()
    (root / GOLF).write_bytes(data[: len(data) // 2])
    (root / UCF / "PullUps/v_PullUps_g02_c01.avi").write_bytes(b"")
    (root / HMDB / "golf/Größe_[HQ]_golf_f_cm_np1_ri_goo_0.avi").write_text(
        "<html>404 Not Found</html>"
    )
    text = refused(tmp_path, allow_partial=True)
    assert "v_GolfSwing_g01_c01.avi: the file is truncated" in text
    assert "v_PullUps_g02_c01.avi: the file is empty" in text
    assert "Größe_[HQ]_golf_f_cm_np1_ri_goo_0.avi: not a readable video" in text


class Touch:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_annotations_that_run_code_are_refused_and_not_run(tmp_path):
    root = write_benchmark("jhmdb_ucf101", tmp_path / "jhmdb_ucf101", ("ucf101",))
    pickled = next(root.glob("*/pyannot.pkl"))
    pickled.write_bytes(pickle.dumps({"v": Touch(tmp_path / "it_ran")}, 3))
    text = refused(tmp_path, False, "jhmdb_ucf101", "jhmdb", "ucf101")
    assert "pyannot.pkl" in text and "open" in text and "Nothing in it was run" in text
    assert not (tmp_path / "it_ran").exists()


def test_a_line_that_does_not_fit_is_named(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "ucf_hmdb_small")
    write_text(
        root / HMDB / "testTrainMulti_7030_splits/golf_test_split1.txt",
        "a.avi 1 \nb.avi\t\n",
        "\r\n",
    )
    assert "golf_test_split1.txt, line 2" in refused(tmp_path, allow_partial=False)
