"""`nbkit check-data`: good data, and every kind of bad data answered by name."""

import pickle
import shutil

import numpy as np
import pytest
from fake_trees import (
    jhmdb_clip,
    save_manifest,
    small_manifest,
    ucf_hmdb_manifest,
    ucf_hmdb_tree,
    write_jpegs,
    write_text,
    write_video,
)
from real_data import real_path
from scipy.io import savemat

from nbkit.benchmarks.check import check_data, format_report
from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve
from nbkit.cli import main
from nbkit.errors import NbkitError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One complete small tree with real encoded videos; tests copy what they break."""
    return ucf_hmdb_tree(tmp_path_factory.mktemp("good"), write_video)


@pytest.fixture
def tree(videos, tmp_path):
    return shutil.copytree(videos, tmp_path / "data")


@pytest.fixture
def manifest(tmp_path):
    return str(save_manifest(ucf_hmdb_manifest(), tmp_path))


def _run(capsys, *arguments):
    code = main(["check-data", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_good_data(tree, manifest, capsys):
    code, text = _run(capsys, manifest, "--root", tree, "--size", 64)
    assert code == 0 and "everything is there" in text
    assert text.count("(as expected)") == 4
    assert "6 frames of 48x32, first 6 decoded, dis flow" in text
    assert f"{12 * 6 * 64 * 64 * 5 / 1e6:.1f} MB for 72 frames" in text and "on one core" in text
    assert "not verified:" in text


def test_broken_videos_are_named(tree, manifest, capsys):
    good = tree / "ucf101/UCF-101/GolfSwing/v_GolfSwing_g08_c01.avi"
    data = good.read_bytes()
    good.write_bytes(b"")
    cut = tree / "ucf101/UCF-101/PullUps/v_PullUps_g09_c01.avi"
    cut.write_bytes(data[: len(data) // 2])
    text_file = tree / "hmdb51/golf/#1_fun!_golf_f_nm_np1_fr_med_1.avi"
    text_file.write_text("this is not a video")
    code, text = _run(capsys, manifest, "--root", tree)
    assert (
        code == 1 and "5 problem(s) found" in text
    )  # three broken files, and a training count off in both domains
    assert "v_GolfSwing_g08_c01.avi: the file is empty" in text
    assert "v_PullUps_g09_c01.avi: the file is truncated" in text
    assert "#1_fun!_golf_f_nm_np1_fr_med_1.avi: not a readable video" in text
    code, text = _run(capsys, manifest, "--root", tree, "--quick")
    assert code == 1 and "the file is empty" in text and "truncated" not in text


def test_lists_and_folders_that_do_not_fit(tree, manifest, capsys):
    (tree / "hmdb51/pullup").rename(tree / "hmdb51/pull_up")
    (tree / "ucf101/UCF-101/PullUps/v_PullUps_g01_c01.avi").unlink()
    write_text(tree / "hmdb51/testTrainMulti_7030_splits/golf_test_split1.txt", "a.avi 1\nb.avi\n")
    code, text = _run(capsys, manifest, "--root", tree)
    assert code == 1
    assert "listed but absent" in text and "v_PullUps_g01_c01.avi" in text
    assert "golf_test_split1.txt, line 2" in text
    write_text(tree / "hmdb51/testTrainMulti_7030_splits/golf_test_split1.txt", "a.avi 1\t\r\n")
    code, text = _run(capsys, manifest, "--root", tree)
    assert "found 'pull_up': rename it to 'pullup'" in text and "golf/a.avi" in text


def test_empty_wrong_and_missing_roots(tree, manifest, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, text = _run(capsys, manifest, "--root", tmp_path / "empty")
    assert code == 1 and text.count("the folder is empty") == 2 and "no usable video" in text
    code, text = _run(capsys, manifest, "--root", tree / "ucf101/UCF-101")
    assert code == 1 and f"it seems to be in {tree}/ucf101" in text
    code, text = _run(capsys, manifest, "--root", tmp_path / "nowhere")
    assert code == 1 and "no such folder" in text
    code, text = _run(capsys, "ucf_hmdb_smal", "--root", tree)
    assert code == 1 and "Did you mean 'ucf_hmdb_small'" in text
    code, text = _run(capsys, manifest, "--root", tree, "--size", 0)
    assert code == 1 and "size=0" in text


def test_one_domain_missing(tree, manifest, tmp_path, capsys):
    (tree / "hmdb51").rename(tmp_path / "gone")
    code, text = _run(capsys, manifest, "--root", tree)
    assert code == 1 and "dataset not found: HMDB51" in text
    assert "ucf (UCF101): 6 usable videos" in text and "train: 4 (as expected)" in text


def test_long_lists_are_cut_unless_asked(tree, manifest, capsys):
    lines = "".join(f"Gone_{i}_golf_f_cm_np1_ri_goo_0.avi 1\n" for i in range(30))
    write_text(tree / "hmdb51/testTrainMulti_7030_splits/golf_test_split1.txt", lines)
    _, text = _run(capsys, manifest, "--root", tree)
    assert "Gone_9_" in text and "Gone_10_" not in text and "listed but absent: 20 more" in text
    _, text = _run(capsys, manifest, "--root", tree, "--all")
    assert "Gone_29_" in text and "more (--all" not in text


def _localization_tree(root):
    for own in ("golf", "shoot_ball", "walk"):
        lines = []
        for i, mark in enumerate((1, 1, 2)):
            name = jhmdb_clip(f"Film{i}", own, "nm")
            write_video(root / "jhmdb/ReCompressed_Videos" / own / name)
            mask = np.zeros((32, 48, 6), np.uint8)
            mask[4:20, 6:20] = 1
            folder = root / "jhmdb/puppet_mask" / own / name[:-4]
            folder.mkdir(parents=True)
            savemat(folder / "puppet_mask.mat", {"part_mask": mask})
            lines.append(f"{name} {mark}\n")
        write_text(root / f"jhmdb/splits/{own}_test_split1.txt", "".join(lines))
    table, test = {}, []
    for own in ("Basketball", "GolfSwing", "WalkingWithDog"):
        for group in ("g01", "g08"):
            stem = f"v_{own}_{group}_c01"
            write_video(root / f"ucf101_24/UCF-101/{own}/{stem}.avi")
            tube = {"label": 0, "sf": 1, "ef": 4, "boxes": np.full((3, 4), 9, np.uint8)}
            table[f"{own}/{stem}"] = {"numf": 6, "label": 0, "annotations": [tube]}
        test.append(f"{own}/v_{own}_g01_c01\n")
    (root / "ucf101_24/pyannot.pkl").write_bytes(pickle.dumps(table, 3))
    write_text(root / "ucf101_24/testlist01.txt", "".join(test))
    return root


def test_localization_benchmark_with_boxes(tmp_path, capsys):
    root = _localization_tree(tmp_path / "data")
    counts = {"jhmdb": {"train": 6, "test": 3}, "ucf101": {"train": 3, "test": 3}}
    manifest = save_manifest(
        small_manifest("jhmdb_ucf101", ["basketball", "golf_swing", "walk"], counts), tmp_path
    )
    code, text = _run(capsys, manifest, "--root", root)
    assert code == 0, text
    assert "6 boxes in 1 tube" in text and "3 boxes in 1 tube" in text
    next((root / "jhmdb/puppet_mask/walk").iterdir()).joinpath("puppet_mask.mat").unlink()
    code, text = _run(capsys, manifest, "--root", root)
    assert code == 1 and "boxes missing" in text
    (root / "ucf101_24/pyannot.pkl").write_bytes(b"cos\nsystem\n(S'touch it_ran'\ntR.")
    code, text = _run(capsys, manifest, "--root", root)
    assert code == 1 and "os.system" in text and "Nothing in it was run" in text


def test_ucfsports_sequences(tmp_path, capsys):
    views = (
        "Diving-Side",
        "Golf-Swing-Back",
        "Golf-Swing-Front",
        "Golf-Swing-Side",
        "Riding-Horse",
    )
    for view in (*views, "SkateBoarding-Front"):
        write_jpegs(tmp_path / "data/ucf_sports" / view / "001", [1, 2, 3])
        for i in (1, 2, 3):
            write_text(
                tmp_path / f"data/ucf_sports/{view}/001/gt/x-{i}.tif.txt", "4\t5\t20\t20\tArmSwing"
            )
    write_video(tmp_path / "data/ucf_sports/Riding-Horse/002/x.avi")
    (tmp_path / "data/ucf_sports/Riding-Horse/003").mkdir()
    report = check_data("ucfsports_ucf101", tmp_path / "data")
    part = report.table[report.table["domain"] == "ucfsports"]
    assert part["class_name"].value_counts().to_dict() == {
        "golf_swing": 3,
        "diving": 1,
        "horse_riding": 1,
        "skate_boarding": 1,
    }
    assert set(part["frames"]) == {3} and set(part["split"]) == {"train"}
    text = format_report(report)
    assert "boxes missing" in text and "Riding-Horse/002/gt" in text
    assert "no pixels" in text and "Riding-Horse/003" in text
    assert "train: 6 (stated, unverified: 56)" in text and "3 boxes in 1 tube" in text


def test_epic_segments(tmp_path):
    header = "uid,participant_id,video_id,start_frame,stop_frame,verb_class\n"
    for domain, kitchen in (("D1", "P08"), ("D2", "P01"), ("D3", "P22")):
        for i, split in enumerate(("train", "test"), 1):
            video = f"{kitchen}_0{i}"
            write_text(
                tmp_path / f"tables/{domain}_{split}.csv",
                header
                + "".join(f"{i}{v},{kitchen},{video},{3 - v},{22 - v},{v}\n" for v in (0, 1)),
            )
            write_jpegs(tmp_path / f"rgb/{kitchen}/{video}", range(1, 23))
            for side in ("u", "v"):
                write_jpegs(
                    tmp_path / f"flow/{kitchen}/{video}/{side}", range(1, 12), 128, colour=False
                )
    manifest = small_manifest("epic_kitchens", ["take", "put"])
    path = save_manifest(manifest, tmp_path)
    report = check_data(str(path), tmp_path)
    assert report.ok and report.frames == 12 * 20 and len(report.samples) == 3
    assert "stored flow" in report.samples[0]
    (tmp_path / "flow/P08/P08_01/u/frame_0000000002.jpg").write_bytes(b"")
    report = check_data(str(path), tmp_path)
    assert not report.ok and "frame_0000000002.jpg: broken image" in format_report(report)


def test_real_laptop_benchmark(capsys):
    code, text = _run(capsys, "jhmdb_camera", "--root", real_path("jhmdb"))
    assert code == 0 and "all: 235 (as expected)" in text and "all: 231 (as expected)" in text
    assert "320x240" in text


def test_root_must_exist():
    with pytest.raises(NbkitError, match="no such folder"):
        check_data("demo", "/does/not/exist")


def test_published_faults_of_ucfsports_do_not_block(tmp_path):
    manifest = load_manifest("ucfsports_ucf101")
    for name in (n for members in manifest.domains["ucfsports"].classes.values() for n in members):
        write_jpegs(tmp_path / "ucf_sports" / name / "001", [1])
        write_text(tmp_path / f"ucf_sports/{name}/001/gt/x-1.tif.txt", "4\t5\t20\t20\tArmSwing")
    (tmp_path / "ucf_sports" / name / "002").mkdir()
    report = check_data("ucfsports_ucf101", tmp_path)
    assert "  - no pixels" in format_report(report) and all(
        "ucf_sports" not in p.name for p in report.blocking
    )
    assert set(resolve(manifest, tmp_path, domains=["ucfsports"])["domain"]) == {"ucfsports"}
