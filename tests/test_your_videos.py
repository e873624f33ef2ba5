"""The page docs/YOUR_VIDEOS.md, followed to the letter; and the layout `folders` beyond it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from fake_trees import write_video

from nbkit.benchmarks.check import check_data, format_report
from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve
from nbkit.config import ROOT
from nbkit.errors import NbkitError

PAGE = (ROOT / "docs" / "YOUR_VIDEOS.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
FILES = BLOCKS[0].splitlines()
COMMANDS = [line for block in BLOCKS[1:] for line in block.splitlines()]


def clips(root, files=FILES):
    for name in files:
        codec = "vp8" if name.endswith(".webm") else "mpeg4"
        write_video(root / name.replace("data/own_videos/", ""), 12, 64, 96, codec)
    return root


def own(tmp_path, **options):
    """The page's manifest with other options for both domains."""
    data = yaml.safe_load((ROOT / "data_manifests" / "own_videos.yaml").read_text())
    for spec in data["domains"].values():
        spec["options"] = options
    path = tmp_path / "own_videos.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_page_to_the_letter(tmp_path):
    for name in ("nbkit", "tables", "data_manifests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    clips(tmp_path / "data" / "own_videos")
    where = {**os.environ, "PYTHONPATH": str(tmp_path)}
    printed = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "nbkit"
        done = subprocess.run(
            [sys.executable, "-m", "nbkit.cli", *arguments],
            cwd=tmp_path,
            env=where,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed[line] = done.stdout
    look, train, export, formatted = printed.values()
    assert "everything is there" in look
    rows = yaml.safe_load((tmp_path / "tables/own_videos.yaml").read_text())["rows"]
    assert all(f"{row['name']} | indoors→outdoors" in train for row in rows)
    assert "failed" not in train
    assert len((tmp_path / "results/own_videos.csv").read_text().splitlines()) == 1 + len(rows)
    assert "STCL+VCA" in (tmp_path / "results/formatted/own_videos.md").read_text()


def test_the_groups_of_the_page(tmp_path):
    root = clips(tmp_path / "data")
    table = resolve(load_manifest("own_videos"), root)
    assert set(table["group"]) == {f"day{n}" for n in range(1, 7)}
    assert set(table.loc[table["path"].str.contains("IMG_0004.MP4"), "group"]) == {"day3"}
    sides = table.groupby("group")["split"].nunique()
    assert (sides == 1).all() and set(table["split"]) == {"train", "test"}


@pytest.mark.parametrize("delimiter, encoding", [(",", "utf-8"), (";", "latin-1")])
def test_groups_from_a_table(tmp_path, delimiter, encoding):
    root = clips(tmp_path / "data")
    for domain in ("indoors", "outdoors"):
        names = [f.partition(f"{domain}/")[2] for f in FILES if f"/{domain}/" in f]
        lines = [delimiter.join((name, f"Café {i // 2}")) for i, name in enumerate(names)]
        text = "\n".join([delimiter.join(("video", "group")), *lines])
        (root / domain / "groups.csv").write_bytes(text.encode(encoding))
    table = resolve(load_manifest(own(tmp_path, groups="groups.csv")), root, allow_partial=True)
    assert set(table["group"]) == {f"Café {i}" for i in range(4)}
    (root / "indoors/groups.csv").write_text("video,group\nwalk/day1_anna.mp4,a\n")
    with pytest.raises(NbkitError, match="no recording group: .*indoors/walk/day1_ben.mov"):
        resolve(load_manifest(own(tmp_path, groups="groups.csv")), root)
    (root / "indoors/groups.csv").write_text("name,day\nwalk/day1_anna.mp4,a\n")
    with pytest.raises(NbkitError, match="every line needs video and group"):
        resolve(load_manifest(own(tmp_path, groups="groups.csv")), root)


def test_without_groups_the_risk_is_told(tmp_path):
    root = clips(tmp_path / "data")
    with pytest.warns(UserWarning, match="piece of a recording that is trained on"):
        table = resolve(load_manifest(own(tmp_path)), root)
    assert table["group"].nunique() == len(FILES)
    report = check_data(str(own(tmp_path)), root)
    assert report.ok and "every file is its own group" in format_report(report)
    assert "every file is" not in format_report(check_data(str(own(tmp_path, groups="file")), root))


def test_what_lies_beside_the_videos_is_counted(tmp_path):
    root = clips(tmp_path / "data")
    (root / "indoors/walk/notes.txt").write_text("x")
    (root / "indoors/run").mkdir()
    (root / "indoors/walk/.hidden.mp4").write_text("x")
    text = format_report(check_data("own_videos", root))
    assert "1 files that are no videos" in text and "walk/notes.txt" in text
    assert "1 other folders" in text and "(run)" in text and ".hidden" not in text


@pytest.mark.parametrize(
    "groups, words",
    [("(?P<group>", "no regular expression"), ("day\\d+", "a pattern with"), ("[", "expression")],
)
def test_a_bad_pattern_is_refused(tmp_path, groups, words):
    with pytest.raises(NbkitError, match=words):
        load_manifest(own(tmp_path, groups=groups))
