"""Small folders in the official layouts, with tiny encoded videos, for the tests of manifests and
layouts.
"""

from pathlib import Path

import av
import cv2
import numpy as np
import yaml

from nbkit.benchmarks.manifest import Manifest, load_manifest


def write_video(path, frames=6, height=32, width=48, codec="mpeg4"):
    """A tiny moving square, encoded; MPEG-4 in .avi or .mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(frames):
            image = np.full((height, width, 3), 60, np.uint8)
            image[8:20, 4 + 2 * t : 16 + 2 * t] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_text(path, text, newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", newline).encode("utf-8"))
    return path


def write_jpegs(folder, numbers, value=90, size=(32, 48), colour=True):
    """Frames frame_%010d.jpg of one grey value (or value(number))."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if colour else size
    for number in numbers:
        level = value(number) if callable(value) else value
        ok, data = cv2.imencode(
            ".jpg", np.full(shape, level, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100]
        )
        assert ok
        (folder / f"frame_{number:010d}.jpg").write_bytes(data.tobytes())


def small_manifest(benchmark: str, classes: list[str], counts: dict | None = None) -> Manifest:
    """A shipped manifest cut down to a few classes, with the expected counts {domain: {split: n}}
    or none.
    """
    data = load_manifest(benchmark).model_dump()
    data["classes"] = classes
    for name, spec in data["domains"].items():
        spec["classes"] = {c: spec["classes"][c] for c in classes}
        spec["expected"] = [{"counts": counts[name]}] if counts else []
    return Manifest.model_validate(data)


def save_manifest(manifest: Manifest, folder: Path) -> Path:
    path = folder / f"{manifest.benchmark}.yaml"
    path.write_text(
        yaml.safe_dump(manifest.model_dump(mode="json"), allow_unicode=True), encoding="utf-8"
    )
    return path


def ucf_hmdb_tree(root, make=touch):
    """UCF101 (CRLF lists) and HMDB51 with two classes: 2 training and 1 test video a class in each
    domain.
    """
    train, test = [], []
    for label, own in enumerate(("GolfSwing", "PullUps"), 1):
        for group in (8, 9):
            name = f"{own}/v_{own}_g{group:02d}_c01.avi"
            make(root / "ucf101/UCF-101" / name)
            train.append(f"{name} {label}\t ")
        make(root / f"ucf101/UCF-101/{own}/v_{own}_g01_c01.avi")
        test.append(f"{own}/v_{own}_g01_c01.avi")
    lists = root / "ucf101/ucfTrainTestlist"
    write_text(
        lists / "trainlist01.txt",
        "\n".join([*train, "Archery/v_Archery_g08_c01.avi 3", ""]),
        "\r\n",
    )
    write_text(lists / "testlist01.txt", "\n".join([*test, ""]), "\r\n")
    for own in ("golf", "pullup"):
        titles = {
            "Größe_[HQ]": "f_cm_np1_ri_goo_0",
            "#1_fun!": "f_nm_np1_fr_med_1",
            "Tips_&_;": "u_cm_np1_le_bad_2",
        }
        names = [f"{title}_{own}_{rest}.avi" for title, rest in titles.items()]
        for name in names:
            make(root / "hmdb51" / own / name)
        lines = (
            f"{names[0]} 1 \n{names[1]} 1 \n{names[2]} 2 \nNobody_{own}_f_cm_np1_ri_goo_9.avi 0 \n"
        )
        write_text(root / f"hmdb51/testTrainMulti_7030_splits/{own}_test_split1.txt", lines)
    return root


def ucf_hmdb_manifest(counts=True):
    each = {"train": 4, "test": 2}
    return small_manifest(
        "ucf_hmdb_small", ["golf", "pullup"], {"ucf": each, "hmdb": each} if counts else None
    )


def jhmdb_clip(title, own, mark, number=0):
    return f"{title}_{own}_f_{mark}_np1_fr_med_{number}.avi"
