"""The rendered demo domains: determinism, exact boxes, splits, the shift, files that decode."""

import hashlib
import json
import os
import re
import subprocess
import sys

import av
import numpy as np
import pytest

from nbkit.demo.actions import ACTIONS, Manner, perform
from nbkit.demo.body import Build, J
from nbkit.demo.render import boxes_of, render_video
from nbkit.demo.style import CHANCES, DOMAINS, RANGES, SHARED, in_haze, sample_style
from nbkit.demo.write import CLASS_NAMES, _write_video, read_boxes, write_demo
from nbkit.errors import NbkitError

COUNTS = {"train": 2, "val": 1, "test": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_demo(
        tmp_path_factory.mktemp("demo") / "demo",
        videos_per_class=COUNTS,
        size=64,
        frames=16,
        workers=2,
    )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listed(root, domain, split):
    lines = (root / domain / "splits" / f"{split}list01.txt").read_text().splitlines()
    return [line.split() for line in lines]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("action", ACTIONS)
def test_video_is_what_it_says(action, domain):
    video = render_video(action, domain, seed=3)
    again = render_video(action, domain, seed=3)
    assert video.frames.shape == (32, 96, 96, 3) and video.frames.dtype == np.uint8
    assert (
        video.boxes.shape == (32, 4)
        and video.boxes.dtype == np.float32
        and video.masks.shape == (32, 96, 96)
    )
    assert video.action.all() and video.masks.any((1, 2)).all()
    assert np.array_equal(video.frames, again.frames) and np.array_equal(video.masks, again.masks)
    assert not np.array_equal(video.frames, render_video(action, domain, seed=4).frames)


@pytest.mark.parametrize("domain", DOMAINS)
def test_boxes_are_tight(domain):
    for action in ACTIONS:
        video = render_video(action, domain, seed=1, frames=12)
        for mask, box in zip(video.masks, video.boxes):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_actor_stays_in_the_picture_and_moves():
    for domain in DOMAINS:
        for action in ACTIONS:
            boxes = render_video(action, domain, seed=7).boxes
            assert boxes.min() >= 0 and boxes.max() <= 96
            assert np.abs(np.diff(boxes, axis=0)).sum() > 8, (action, domain)


def test_box_leaves_the_prop_out():
    """The ball flies far away from the hand; no box grows with it."""
    video = render_video("throw", "studio", seed=2)
    motion = perform("throw", 32, Build(), Manner())
    assert motion.prop[-1, 0] > motion.joints[-1, :, 0].max() + 0.5
    assert (video.boxes[:, 2] - video.boxes[:, 0]).max() < 0.75 * 96


@pytest.mark.parametrize("action", ACTIONS)
def test_limbs_keep_their_length_and_nobody_sinks(action):
    joints = perform(action, 64, Build(), Manner(size=1.0)).joints
    for a, b, length in (
        ("l_hip", "l_knee", 0.235),
        ("r_knee", "r_ankle", 0.225),
        ("l_shoulder", "l_elbow", 0.165),
    ):
        assert np.allclose(np.linalg.norm(joints[:, J[a]] - joints[:, J[b]], axis=-1), length)
    assert joints[:, [J["l_ankle"], J["r_ankle"]], 2].min() > 0.02


def test_figure_is_brighter_than_what_surrounds_it():
    for domain in DOMAINS:
        for k, action in enumerate(ACTIONS):
            video = render_video(action, domain, seed=20 + k)
            if video.style["occluder"]:
                continue
            luma = video.frames @ np.array([0.299, 0.587, 0.114])
            assert luma[video.masks].mean() > luma[~video.masks].mean() + 20


def test_shift_zero_is_studio():
    """From the same generator the two domains draw the same numbers at shift 0, and statistics
    never shift.
    """
    for seed in range(50):
        studio = sample_style(np.random.default_rng(seed), "studio", shift=1.0)
        assert sample_style(np.random.default_rng(seed), "street", shift=0.0) == studio
        street = sample_style(np.random.default_rng(seed), "street", shift=1.0)
        assert all(street[name] == studio[name] for name in SHARED)
        for name, (_, _, low, high) in RANGES.items():
            assert low <= street[name] <= high


def test_shift_moves_linearly_from_studio_to_street():
    draws = {
        s: [sample_style(np.random.default_rng(i), "street", s) for i in range(400)]
        for s in (0.0, 0.5, 1.0)
    }
    for name in ("height", "turn", "clutter", "tempo"):
        means = [np.mean([d[name] for d in draws[s]]) for s in draws]
        assert np.isclose(means[1], (means[0] + means[2]) / 2)
    for name, (_, far) in CHANCES.items():
        assert abs(np.mean([d[name] for d in draws[1.0]]) - far) < 0.1


def test_untrimmed():
    video = render_video("kick", "street", seed=5, frames=20, untrimmed=True)
    assert len(video.frames) == 60 and 0 < video.action.sum() < 60
    starts = np.flatnonzero(np.diff(np.concatenate([[0], video.action.astype(int)])) == 1)
    assert len(starts) == 2
    assert (video.boxes[video.action, 2] > 0).all()
    empty = ~video.masks.any((1, 2))
    assert (video.boxes[empty] == 0).all() and not video.action[empty].any()


def test_haze_takes_contrast_from_street_and_moves_nothing():
    clear, hazy = (render_video("walk", "street", seed=3, haze=h) for h in (0.0, 0.6))
    np.testing.assert_array_equal(hazy.boxes, clear.boxes)
    spread = [v.frames.astype(float).std() for v in (clear, hazy)]
    assert 0.35 < spread[1] / spread[0] < 0.75  # 30 to 60 % are lost, the sensor's noise is not
    assert hazy.frames.mean() > clear.frames.mean()
    studio = [render_video("walk", "studio", seed=3, haze=h).frames for h in (0.0, 0.6)]
    np.testing.assert_array_equal(*studio)


def test_haze_follows_the_equation_of_koschmieder():
    curve = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)  # (1, 256, 3)
    for seed in range(20):
        seen = in_haze(curve, np.random.default_rng(seed), 0.6)[0].astype(float)  # (256, 3)
        lost = 1 - (seen[255] - seen[0]) / 255  # the slope is 1 - h in every channel
        assert (0.29 < lost).all() and (lost < 0.61).all() and np.ptp(lost) < 0.01
        assert (seen[0] / lost > 160).all() and (
            seen[0] / lost < 240
        ).all()  # black shows the airlight


def test_boxes_of_empty_mask():
    masks = np.zeros((2, 8, 8), bool)
    masks[1, 2:4, 5:8] = True
    assert boxes_of(masks).tolist() == [[0, 0, 0, 0], [5, 2, 8, 4]]


def test_every_file_decodes(root):
    for domain in DOMAINS:
        names = {entry[0] for split in COUNTS for entry in listed(root, domain, split)}
        files = {f"{p.parent.name}/{p.name}" for p in (root / domain / "videos").glob("*/*.avi")}
        assert names == files and len(files) == 8 * 4
        for name in sorted(names):
            with av.open(str(root / domain / "videos" / name)) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
                assert container.streams.video[0].average_rate == 25
            assert np.stack(frames).shape == (16, 64, 64, 3)
            truth = read_boxes(root / domain / "boxes" / name.replace(".avi", ".npz"))
            assert truth["boxes"].dtype == np.float32 and np.array_equal(
                boxes_of(truth["masks"]), truth["boxes"]
            )
            assert truth["action"].shape == (16,) and truth["action"].all()


def test_encoding_is_close_to_the_pixels(root):
    name = "v_Walk_g01_c01"
    number = int(np.random.SeedSequence([0, 0, 0]).generate_state(1)[0])
    video = render_video("walk", "studio", number, size=64, frames=16)
    with av.open(str(root / "studio" / "videos" / "Walk" / f"{name}.avi")) as container:
        decoded = np.stack(
            [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        )
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(decoded @ luma - video.frames @ luma).mean() < 4
    assert np.array_equal(
        read_boxes(root / "studio" / "boxes" / "Walk" / f"{name}.npz")["masks"], video.masks
    )


def test_splits_are_disjoint(root):
    for domain in DOMAINS:
        entries = {split: listed(root, domain, split) for split in COUNTS}
        groups = {split: {e[0].split("_g")[1][:2] for e in entries[split]} for split in COUNTS}
        assert all(
            groups[a].isdisjoint(groups[b])
            for a, b in (("train", "test"), ("train", "val"), ("val", "test"))
        )
        names = list(CLASS_NAMES.values())
        assert all(
            len(e) == 2 and names[int(e[1]) - 1] == e[0].split("/")[0] for e in entries["train"]
        )
        assert all(len(e) == 1 for e in entries["test"])
    files = list(root.glob("*/videos/*/*.avi"))
    assert len({digest(p) for p in files}) == len(
        files
    )  # no video twice, across splits and domains


def test_same_seed_same_bytes_and_second_call_skips(root, tmp_path):
    how = {"videos_per_class": COUNTS, "size": 64, "frames": 16}
    other = write_demo(tmp_path / "d", workers=1, **how)
    for name in ("Throw/v_Throw_g01_c02", "Lift/v_Lift_g03_c01"):
        for kind, suffix in (("videos", "avi"), ("boxes", "npz")):
            place = f"street/{kind}/{name}.{suffix}"
            assert digest(other / place) == digest(root / place)
    stamp = (other / "demo.json").stat().st_mtime_ns
    write_demo(other, **how)
    assert (other / "demo.json").stat().st_mtime_ns == stamp
    write_demo(other, videos_per_class={"train": 1, "test": 1}, size=32, frames=8, workers=1)
    assert not list(other.glob("*/videos/*/*_c02.avi"))
    assert json.loads((other / "demo.json").read_text())["size"] == 32
    assert not [p for p in tmp_path.iterdir() if p != other]  # nothing temporary is left


def test_masks_are_those_of_the_first_version():
    """The pixels of a seed change only with VERSION, or committed results lose their data."""
    found = hashlib.sha256()
    for k, action in enumerate(ACTIONS):
        video = render_video(action, DOMAINS[k % 2], seed=k, frames=8, untrimmed=k % 3 == 0)
        found.update(video.masks.tobytes())
    assert found.hexdigest()[:16] == "b822395905f7f7c5"


def test_a_script_without_a_main_guard_renders_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from nbkit.demo.write import write_demo\n"
        "print('started')\n"
        f"write_demo({str(tmp_path / 'd')!r}, size=32, frames=8, workers=2,\n"
        "           videos_per_class={'train': 1, 'test': 1})\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started\n"
    assert len(list((tmp_path / "d").glob("*/videos/*/*.avi"))) == 32


TINY = {"videos_per_class": {"train": 1, "test": 1}, "size": 32, "frames": 8, "workers": 1}


def contents(folder):
    return {str(p.relative_to(folder)): digest(p) for p in folder.rglob("*") if p.is_file()}


def test_a_killed_or_plundered_demo_is_completed(tmp_path, monkeypatch):
    whole, other, made = contents(write_demo(tmp_path / "d", **TINY)), tmp_path / "e", []

    def stop_after_five(job):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(job)
        _write_video(job)

    with monkeypatch.context() as patch:
        patch.setattr("nbkit.demo.write._write_video", stop_after_five)
        with pytest.raises(KeyboardInterrupt):
            write_demo(other, **TINY)
    half = other / "street/videos/Wave/v_Wave_g01_c01.avi.0123456789ab.part"
    half.write_text("half")
    os.utime(half, (0, 0))
    write_demo(other, **TINY)
    assert contents(other) == whole
    for path in [*other.glob("street/videos/*/*_g02_*"), *other.glob("studio/boxes/Wave/*")]:
        path.unlink()
    (other / "street/splits/testlist01.txt").unlink()
    next(other.glob("studio/videos/Walk/*")).write_bytes(b"")
    write_demo(other, **TINY)
    assert contents(other) == whole


@pytest.mark.parametrize(
    "name", ["notes.txt", "studio/videos/Walk/mine.mp4", ".git/config", "studio/videos/Walk/a.part"]
)
def test_only_what_it_wrote_is_deleted(tmp_path, name):
    root = write_demo(tmp_path / "d", **TINY)
    mine, before = root / name, contents(root)
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("keep")
    with pytest.raises(NbkitError, match=f"holds {re.escape(name)}, which is not demo data"):
        write_demo(root, **{**TINY, "seed": 7})
    assert mine.read_text() == "keep" and before.items() <= contents(root).items()
    mine.unlink()
    (root / "studio/.DS_Store").touch()
    write_demo(root, **{**TINY, "seed": 7})
    assert json.loads((root / "demo.json").read_text())["seed"] == 7


def test_refusals(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(NbkitError, match="mine.txt"):
        write_demo(tmp_path, videos_per_class={"train": 1, "test": 1})
    assert (tmp_path / "mine.txt").read_text() == "keep"
    for bad in (
        {"shift": 2},
        {"size": 20},
        {"videos_per_class": {"train": 0, "test": 1}},
    ):
        with pytest.raises(NbkitError):
            write_demo(tmp_path / "x", **bad)
    for bad in ({"action": "fly"}, {"domain": "moon"}, {"shift": -1.0}, {"size": 8}, {"haze": 1.0}):
        with pytest.raises(NbkitError):
            render_video(**{"action": "walk", "domain": "street", "seed": 0} | bad)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(NbkitError, match="cut.npz"):
        read_boxes(tmp_path / "cut.npz")
    with pytest.raises(NbkitError, match="render the demo data again"):
        read_boxes(tmp_path / "none.npz")


def test_untrimmed_part(tmp_path):
    counts = {"train": 1, "val": 0, "test": 1}
    how = {"size": 32, "frames": 8, "workers": 1, "untrimmed_fraction": 1.0}
    write_demo(tmp_path / "d", videos_per_class=counts, **how)
    truth = read_boxes(tmp_path / "d" / "street" / "boxes" / "Wave" / "v_Wave_g01_c01.npz")
    assert len(truth["action"]) == 24 and not truth["action"].all()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NbkitError, match="file"):
        write_demo(tmp_path / "file" / "demo", videos_per_class={"train": 1, "test": 1})
