"""Annotations, flow and frames that do not fit; files that are used twice; bounded readers."""

import os
import pickle
import shutil
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from benchmark_trees import write_benchmark
from fake_trees import jhmdb_clip, small_manifest, touch, write_text, write_video
from scipy.io import savemat
from test_sources import shaken, tsn

from nbkit.benchmarks.check import check_data, format_report
from nbkit.benchmarks.epic import read_segments
from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve, scan
from nbkit.data.arrays import one_at_a_time
from nbkit.data.boxes import fitting_tubes, jhmdb_masks, ucf101_24_tubes, ucfsports_boxes
from nbkit.data.frame_cache import build_frame_cache
from nbkit.data.keyframes import KeyframeDataset
from nbkit.data.safe_pickle import load_plain_pickle
from nbkit.data.sources import read_flow, source_of
from nbkit.errors import NbkitError


def annotated(name, root, frames, mask_frames, n=10):
    """A row of a video with boxes in one of the datasets' forms."""
    path, row = write_video(root / "Golf/v_Golf_g01_c01.avi", frames), {"class_name": "golf"}
    if name == "ucf101_24":
        boxes = np.full((n, 4), 9, np.uint8)
        tube = {"label": 0, "sf": 0, "ef": n, "boxes": boxes}
        entry = {"numf": mask_frames, "label": 0, "annotations": [tube]}
        file = root / "pyannot.pkl"
        file.write_bytes(pickle.dumps({"Golf/v_Golf_g01_c01": entry}, 2))
    elif name == "jhmdb":
        mask = np.zeros((32, 48, mask_frames), np.uint8)
        mask[4:20, 6:20, :n] = 1
        file = root / "puppet_mask.mat"
        savemat(file, {"part_mask": mask}, do_compression=True)
    elif name == "ucfsports":
        file = root / "gt"
        for i in range(mask_frames):
            write_text(file / f"x-{i + 1}.tif.txt", "4 5 20 20 x" if i < n else "")
    else:
        file = root / "boxes.npz"
        boxes = np.tile([4, 5, 20, 20], (mask_frames, 1))
        np.savez(file, boxes=boxes, action=np.arange(mask_frames) < n)
    return {
        **row,
        "video": "d/Golf/v_Golf_g01_c01",
        "path": str(path),
        "boxes": str(file),
        "label": 0,
    }


@pytest.mark.parametrize("name", ["ucf101_24", "jhmdb", "ucfsports", "demo"])
@pytest.mark.parametrize(
    "frames, counted, boxes", [(12, 12, 10), (11, 12, 10), (12, 11, 10), (9, 9, 9)]
)
def test_boxes_of_another_length_are_refused(tmp_path, name, frames, counted, boxes):
    row = annotated(name, tmp_path, frames, counted, boxes)
    table = pd.DataFrame([row])
    cache = build_frame_cache(table, tmp_path / "cache", size=(32, 48), progress=False)
    # UCF101-24 has a file with one frame more than its annotation counts
    if frames == counted or (name == "ucf101_24" and frames == counted + 1):
        data = KeyframeDataset(cache, table, clip_len=4, key_stride=1)
        assert len(data) == boxes
        return
    with pytest.raises(
        NbkitError, match=f"v_Golf_g01_c01: {frames} frames, but .* annotates {counted}"
    ):
        KeyframeDataset(cache, table, clip_len=4, key_stride=1)
    hidden = KeyframeDataset(cache, table, clip_len=4, key_stride=1, withhold_labels=True)
    assert len(hidden) == frames  # the target's annotation is not even opened


def test_boxes_beyond_the_last_frame_are_refused(tmp_path):
    row = annotated("ucf101_24", tmp_path, 12, 12, 14)
    with pytest.raises(NbkitError, match="boxes up to frame 14"):
        fitting_tubes(row, 12)


def test_check_data_names_what_does_not_fit(tmp_path):
    root = write_benchmark("jhmdb_ucf101", tmp_path)
    assert not [p for p in check_data("jhmdb_ucf101", root).blocking if "frames, but" in str(p)]
    for mask in sorted(root.glob("jhmdb/puppet_mask/walk/*/puppet_mask.mat"))[:2]:
        savemat(mask, {"part_mask": np.ones((32, 48, 9), np.uint8)})
    text = format_report(check_data("jhmdb_ucf101", root))
    assert text.count("10 frames, but") == 2


def test_too_many_flow_images_are_refused(tmp_path):
    frames, steps = shaken(np.random.default_rng(0))
    row, *_ = tsn(tmp_path, frames, steps)
    shape = (20, *frames.shape[1:])
    assert len(read_flow(source_of(row), shape)) == 20
    with pytest.raises(NbkitError, match="pairs of flow images for 20 frames"):
        read_flow(source_of(row), shape, whole=True)


# --- files that are used twice, or not at all ----------------------------------------------------
def camera_pair(root, make=touch):
    for mark in ("nm", "cm"):
        for own in ("clap", "golf"):
            for film in "abcdef":
                make(root / f"{mark}/ReCompressed_Videos/{own}/{jhmdb_clip(film, own, mark)}")
    return root


def own_folders(static="nm", moving="cm"):
    data = small_manifest("jhmdb_camera", ["clap", "golf"]).model_dump()
    for name, folder in (("static", static), ("moving", moving)):
        data["domains"][name].update(folder=[folder], options={})
    return type(load_manifest("demo")).model_validate(data)


def link_folder(root):
    shutil.rmtree(root / "cm")
    (root / "cm").symlink_to(root / "nm")


def link_files(root):
    for path in root.glob("cm/*/*/*.avi"):
        path.unlink()
        path.symlink_to(next((root / f"nm/ReCompressed_Videos/{path.parent.name}").iterdir()))


def hard_links(root):
    shutil.rmtree(root / "cm")
    shutil.copytree(root / "nm", root / "cm", copy_function=os.link)


def twice_in_one(root):
    first = next((root / "nm/ReCompressed_Videos/clap").iterdir())
    first.with_name(jhmdb_clip("again", "clap", "nm")).symlink_to(first)


@pytest.mark.parametrize("harm", [link_folder, link_files, hard_links, twice_in_one])
def test_one_file_under_two_names_stops_every_run(tmp_path, harm):
    root = camera_pair(tmp_path)
    assert len(resolve(own_folders(), root)) == 24
    harm(root)
    for partial in (False, True):
        with pytest.raises(NbkitError, match="the same files"):
            resolve(own_folders(), root, allow_partial=partial)


def test_groups_that_leave_no_test_part_are_named(tmp_path):
    root = camera_pair(tmp_path)
    for path in root.glob("nm/ReCompressed_Videos/clap/*"):
        path.rename(path.with_name(f"VID_{path.name[0] > 'c':d}{path.name[0]}_1.avi"))
    resolve(own_folders(), root)
    for i, path in enumerate(sorted(root.glob("nm/ReCompressed_Videos/clap/*"))):
        path.rename(path.with_name(f"clip_{i:03d}.avi"))
    with pytest.raises(
        NbkitError, match=r"no test videos: class clap .*1 recording group\(s\): clip"
    ):
        resolve(own_folders(), root)
    manifest = own_folders()
    spec = manifest.domains["static"]
    options = spec.options.model_copy(update={"groups": "file"})
    spec = spec.model_copy(update={"options": options})
    manifest = manifest.model_copy(update={"domains": {**manifest.domains, "static": spec}})
    assert len(resolve(manifest, root)) == 24


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    root = camera_pair(tmp_path)
    folder = os.fsencode(root / "nm/ReCompressed_Videos/clap")
    with open(os.path.join(folder, b"caf\xe9_clap_1.avi"), "wb"):
        pass
    _, problems = scan(own_folders(), root)
    (problem,) = (p for p in problems["static"] if p.level == "blocking")
    assert "caf\\udce9_clap_1.avi" in str(problem) and "rename" in str(problem)


def test_lists_that_spell_otherwise(tmp_path):
    root = write_benchmark("ucf_hmdb_small", tmp_path, ("ucf",))
    lists = root / "ucf101/ucfTrainTestlist"
    before, _ = scan(load_manifest("ucf_hmdb_small"), root)
    for change in (
        lambda text: text.replace("GolfSwing/", "Golfswing/"),
        lambda text: "".join(f"UCF-101/{line}\n" for line in text.splitlines()),
        lambda text: "".join(f"./{line}\n" for line in text.splitlines()),
        lambda text: text.replace("/v_", "\\v_"),
        lambda text: text.replace(".avi", ".AVI"),
        lambda text: "\ufeff" + text,
    ):
        saved = {path: path.read_text() for path in lists.iterdir()}
        for path, text in saved.items():
            path.write_text(change(text), encoding="utf-8")
        after, _ = scan(load_manifest("ucf_hmdb_small"), root)
        assert after.equals(before) and len(after)
        for path, text in saved.items():
            path.write_text(text)
    for path in lists.iterdir():
        path.write_text(path.read_text().replace("GolfSwing/", "Golf/"))
    _, problems = scan(load_manifest("ucf_hmdb_small"), root)
    assert any("in no list" in str(p) and "they name" not in str(p) for p in problems["ucf"])


# --- readers -------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["5", "5 6 7", "1 2 3 4 a\n5 6 7 8 b", "nan 2 3 4", "1 2 inf 4"])
def test_a_line_that_is_no_box_is_refused(tmp_path, text):
    (tmp_path / "x-1.tif.txt").write_text(text)
    with pytest.raises(NbkitError, match="x-1.tif.txt: expected 'x y w h label' of one actor"):
        ucfsports_boxes(tmp_path)


def segments(tmp_path, **columns):
    row = {"uid": 1, "participant_id": "P01", "video_id": "P01_01", "start_frame": 1}
    row |= {"stop_frame": 9, "verb_class": 0, "note": "café", **columns}
    path = tmp_path / "D1_train.csv"
    path.write_bytes(pd.DataFrame([row]).to_csv(index=False).encode("latin-1"))
    return path


def test_segment_tables(tmp_path):
    assert read_segments(segments(tmp_path))["stop_frame"].tolist() == [9]
    assert read_segments(segments(tmp_path, stop_frame=9.0))["stop_frame"].tolist() == [9]
    for name, value in (("start_frame", 1.9), ("stop_frame", 8.5), ("verb_class", 0.1)):
        with pytest.raises(NbkitError, match="must be whole numbers"):
            read_segments(segments(tmp_path, **{name: value}))
    for name in ("P01_../../../etc", "../P01_01", "P01/01", ""):
        with pytest.raises(NbkitError, match="D1_train.csv"):
            read_segments(segments(tmp_path, video_id=name))
    path = tmp_path / "new.pkl"
    pd.DataFrame({"uid": [1]}).to_pickle(path)
    with pytest.raises(NbkitError, match="a newer version of pandas.*export the table as CSV"):
        read_segments(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # bytearray of a terabyte
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 63) + b".",
        # {((((0, 0), ...), ...): 1}: hashing it takes 2 ** 60 steps
        b"\x80\x04}K\x00" + b"".join(b"\x94h%c\x86" % i for i in range(60)) + b"K\x01s.",
    ],
)
def test_small_pickles_that_take_everything_are_refused(tmp_path, data):
    path = tmp_path / "p.pkl"
    path.write_bytes(data)
    with pytest.raises(NbkitError, match="p.pkl"):
        load_plain_pickle(path)


def test_annotations_that_name_boxes_again_and_again_are_refused(tmp_path):
    boxes = np.full((1000, 4), 9, np.uint8)
    tube = {"label": 0, "sf": 0, "ef": 1000, "boxes": boxes}
    path = tmp_path / "pyannot.pkl"
    for name, tubes, words in (
        ("Golf/v", [tube] * 5000, "more than"),
        ("Golf/../x", [tube], "form"),
    ):
        path.write_bytes(pickle.dumps({name: {"numf": 1000, "annotations": tubes}}, 4))
        os.utime(path, ns=(len(tubes), len(tubes)))
        with pytest.raises(NbkitError, match=f"pyannot.pkl.*{words}"):
            ucf101_24_tubes(path)


def test_a_mask_file_that_unpacks_to_a_gigabyte_is_refused(tmp_path):
    packed = zlib.compress(bytes(1 << 20))  # a part of a gigabyte of zeros, in pieces of a megabyte
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    path = tmp_path / "puppet_mask.mat"
    path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(NbkitError, match="puppet_mask.mat.*unpacks to more than"):
        jhmdb_masks(path)


def test_a_data_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        NbkitError, match="making-demo.lock: could not be written.*Move it or choose"
    ):
        with one_at_a_time(tmp_path / "file" / "data", "demo"):
            pass
