"""A tiny copy of every benchmark in the official layout of its datasets: all classes, a few videos
of ten frames each.
"""

import pickle
from pathlib import Path

import numpy as np
from fake_trees import jhmdb_clip, write_jpegs, write_text, write_video
from scipy.io import savemat

from nbkit.benchmarks.manifest import DomainSpec, load_manifest

FRAMES, HEIGHT, WIDTH = 10, 32, 48
TRAIN, TEST = 2, 1  # videos of a dataset's class
BOX = (6, 4, 20, 20)  # x1, y1, x2, y2 of every actor


def write_benchmark(benchmark: str, root: Path, domains: tuple[str, ...] = ()) -> Path:
    """Write the (named) domains of a benchmark below `root`, each into the first folder its
    manifest looks for.
    """
    manifest = load_manifest(benchmark)
    for name in domains or manifest.domains:
        spec = manifest.domains[name]
        WRITERS[spec.layout](root / spec.folder[0], spec)
    return root


def clip(path: Path) -> Path:
    return write_video(path, FRAMES, HEIGHT, WIDTH)


def ucf101(base: Path, spec: DomainSpec) -> None:
    """With carriage returns and trailing tabs in the lists, as published in places."""
    lists = {"train": [], "test": []}
    for number, own in enumerate(spec.common_class, 1):
        for group in range(TRAIN + TEST):
            name = f"{own}/v_{own}_g{group + 1:02d}_c01.avi"
            clip(base / "UCF-101" / name)
            lists["train" if group < TRAIN else "test"].append(
                f"{name} {number}\t" if group < TRAIN else name
            )
    for split, lines in lists.items():
        write_text(base / f"ucfTrainTestlist/{split}list01.txt", "\n".join([*lines, ""]), "\r\n")


def hmdb51(base: Path, spec: DomainSpec) -> None:
    """With the names that HMDB51 has, and one of another alphabet."""
    titles = ["Größe_[HQ]", "#1_fun!", "Tips_&_;"]
    for own in spec.common_class:
        names = [f"{title}_{own}_f_cm_np1_ri_goo_{i}.avi" for i, title in enumerate(titles)]
        for name in names:
            clip(base / own / name)
        lines = "".join(f"{name} {1 if i < TRAIN else 2} \n" for i, name in enumerate(names))
        write_text(base / f"testTrainMulti_7030_splits/{own}_test_split1.txt", lines)


def olympic(base: Path, spec: DomainSpec) -> None:
    for own in spec.common_class:
        names = [f"{own}_{i}" for i in range(TRAIN + TEST)]
        for name in names:
            clip(base / own / f"{name}.avi")
        for split, part in (("train", names[:TRAIN]), ("test", names[TRAIN:])):
            write_text(base / f"train_test_split/{split}/{own}.txt", "\n".join(part))


def epic(base: Path, spec: DomainSpec) -> None:
    """One long video a split, whose segments follow one another; flow images at half rate."""
    domain = spec.options.domain
    kitchen = {"D1": "P08", "D2": "P01", "D3": "P22"}[domain]
    verbs = list(spec.common_class)
    for number, (split, count) in enumerate((("train", TRAIN), ("test", TEST)), 1):
        video, rows = (
            f"{kitchen}_{number:02d}",
            ["uid,participant_id,video_id,start_frame,stop_frame,verb_class"],
        )
        for i, verb in enumerate(verbs * count):
            rows.append(
                f"{number}{i:03d},{kitchen},{video},{1 + FRAMES * i},{FRAMES * (i + 1)},{verb}"
            )
        last = FRAMES * len(verbs) * count
        write_text(base / f"Annotations/{domain}_{split}.csv", "\n".join(rows))
        write_jpegs(
            base / f"frames_rgb_flow/rgb/train/{kitchen}/{video}",
            range(1, last + 1),
            lambda n: 30 + n % 200,
        )
        for side in ("u", "v"):
            folder = base / f"frames_rgb_flow/flow/train/{kitchen}/{video}/{side}"
            write_jpegs(folder, range(1, last // 2), lambda n: 100 + n % 50, colour=False)


def jhmdb(base: Path, spec: DomainSpec) -> None:
    """Videos and puppet masks; as many films as grouped splits need."""
    for own in spec.common_class:
        lines = []
        for i in range(2 * (TRAIN + TEST)):
            mark = spec.options.mark or "nm"
            name = jhmdb_clip(f"Film{i}{mark}", own, mark)
            clip(base / "ReCompressed_Videos" / own / name)
            mask = np.zeros((HEIGHT, WIDTH, FRAMES), np.uint8)
            mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
            folder = base / "puppet_mask" / own / name[:-4]
            folder.mkdir(parents=True)
            savemat(folder / "puppet_mask.mat", {"part_mask": mask})
            lines.append(f"{name} {1 if i < 2 * TRAIN else 2}\n")
        write_text(base / f"splits/{own}_test_split1.txt", "".join(lines))


def arid(base: Path, spec: DomainSpec) -> None:
    for own in spec.common_class:
        for group in range(TRAIN + TEST):
            clip(base / own / f"{own}_{group + 1}_1.mp4")


def ucf101_24(base: Path, spec: DomainSpec) -> None:
    table, test = {}, []
    for own in spec.common_class:
        for group in range(TRAIN + TEST):
            name = f"{own}/v_{own}_g{group + 1:02d}_c01"
            clip(base / "UCF-101" / f"{name}.avi")
            x1, y1, x2, y2 = BOX
            boxes = np.tile(np.array([x1, y1, x2 - x1, y2 - y1], np.uint8), (FRAMES, 1))
            tube = {"label": 0, "sf": 0, "ef": FRAMES, "boxes": boxes}
            table[name] = {"numf": FRAMES, "label": 0, "annotations": [tube]}
            test += [name] if group >= TRAIN else []
    (base / "pyannot.pkl").write_bytes(pickle.dumps(table, 3))
    write_text(base / "testlist01.txt", "\n".join(test))


def ucfsports(base: Path, spec: DomainSpec) -> None:
    """Folders of JPEG frames, one text file of boxes a frame."""
    x1, y1, x2, y2 = BOX
    for own in spec.common_class:
        for i in range(TRAIN):
            folder = base / own / f"{i + 1:03d}"
            write_jpegs(folder, range(1, FRAMES + 1), lambda n: 20 * n)
            for n in range(1, FRAMES + 1):
                write_text(folder / f"gt/x-{n}.tif.txt", f"{x1}\t{y1}\t{x2 - x1}\t{y2 - y1}\tx")


WRITERS = {
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "olympic": olympic,
    "epic": epic,
    "jhmdb": jhmdb,
    "arid": arid,
    "ucf101_24": ucf101_24,
    "ucfsports": ucfsports,
}
