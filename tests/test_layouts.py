"""Every official folder layout, whole and with parts missing."""

import unicodedata

import pandas as pd
import pytest
import yaml
from fake_trees import (
    jhmdb_clip,
    small_manifest,
    touch,
    ucf_hmdb_manifest,
    ucf_hmdb_tree,
    write_jpegs,
    write_text,
)

from nbkit.benchmarks.manifest import Manifest, load_manifest
from nbkit.benchmarks.resolve import resolve, scan
from nbkit.data.sources import read_frames, source_of
from nbkit.errors import NbkitError


def test_ucf_and_hmdb_layouts(tmp_path):
    table = resolve(ucf_hmdb_manifest(), ucf_hmdb_tree(tmp_path))
    assert list(table.columns[:7]) == [
        "video",
        "path",
        "class_name",
        "label",
        "domain",
        "split",
        "group",
    ]
    assert table["video"].is_unique and (table["video"] == sorted(table["video"])).all()
    row = table[table["video"] == "hmdb/golf/#1_fun!_golf_f_nm_np1_fr_med_1"].iloc[0]
    assert (row["class_name"], row["label"], row["split"], row["group"]) == (
        "golf",
        0,
        "train",
        "#1_fun!",
    )
    assert (
        not table["video"].str.contains("Nobody|Archery").any()
    )  # unused clips and other classes stay out
    groups = {f"{own}/{g}" for own in ("GolfSwing", "PullUps") for g in ("g01", "g08", "g09")}
    assert set(table[table.domain == "ucf"]["group"]) == groups


def test_a_folder_somewhere_else_and_other_video_folder_names(tmp_path):
    root = ucf_hmdb_tree(tmp_path)
    (root / "ucf101").rename(root / "elsewhere")
    (root / "elsewhere/UCF-101").rename(root / "elsewhere/videos")
    data = ucf_hmdb_manifest().model_dump()
    data["domains"]["ucf"]["folder"] = [str(root / "elsewhere")]
    assert len(resolve(Manifest.model_validate(data), root)) == 12


def test_accents_spelled_another_way_on_disk(tmp_path):
    root = ucf_hmdb_tree(tmp_path)
    for path in list((root / "hmdb51/golf").iterdir()):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert len(resolve(ucf_hmdb_manifest(), root)) == 12


def test_videos_in_another_format_or_as_frames(tmp_path):
    root = ucf_hmdb_tree(tmp_path)
    clip = root / "ucf101/UCF-101/GolfSwing/v_GolfSwing_g08_c01.avi"
    clip.rename(clip.with_suffix(".mp4"))
    clip = root / "hmdb51/golf/#1_fun!_golf_f_nm_np1_fr_med_1.avi"
    clip.unlink()
    write_jpegs(clip.with_suffix(""), [1, 2])
    table = resolve(ucf_hmdb_manifest(), root).set_index("video")
    assert table.loc["ucf/GolfSwing/v_GolfSwing_g08_c01", "path"].endswith("_c01.mp4")
    assert table.loc["hmdb/golf/#1_fun!_golf_f_nm_np1_fr_med_1", "group"] == "#1_fun!"


def test_stored_flow_is_found_beside_the_videos(tmp_path):
    data, root = ucf_hmdb_manifest().model_dump(), ucf_hmdb_tree(tmp_path)
    data["domains"]["ucf"]["options"] = {"flow_images": "flow"}
    clips = sorted((root / "ucf101/UCF-101").glob("*/*.avi"))
    flows = [root / "ucf101/flow" / clip.parent.name / clip.stem for clip in clips[:-2]]
    flows.append(root / "ucf101/flow" / clips[-2].stem)
    for folder in flows:
        folder.mkdir(parents=True)
    table, problems = scan(Manifest.model_validate(data), root)
    found = table.loc[table["domain"] == "ucf", "flow_path"].tolist()
    assert found == [*map(str, flows), ""]
    assert set(table.loc[table["domain"] == "hmdb", "flow_path"]) == {""}
    assert [p.kind for p in problems["ucf"]] == ["flow folder missing"]
    assert clips[-1].stem in problems["ucf"][0].name


def test_missing_data_is_named_and_partial_goes_on(tmp_path):
    root = ucf_hmdb_tree(tmp_path)
    (root / "ucf101/UCF-101/GolfSwing").rename(root / "ucf101/UCF-101/golf_swing")
    (root / "hmdb51/golf/#1_fun!_golf_f_nm_np1_fr_med_1.avi").unlink()
    with pytest.raises(
        NbkitError, match=r"found 'golf_swing': rename it to 'GolfSwing'[\s\S]*#1_fun!_golf"
    ):
        resolve(ucf_hmdb_manifest(), root)
    table = resolve(ucf_hmdb_manifest(), root, allow_partial=True)
    assert table.groupby("domain").size().to_dict() == {"ucf": 3, "hmdb": 5}


def test_one_domain_missing_and_nothing_at_all(tmp_path):
    root = ucf_hmdb_tree(tmp_path / "data")
    (root / "hmdb51").rename(tmp_path / "gone")
    with pytest.raises(NbkitError, match=r"\[hmdb\] dataset not found: HMDB51"):
        resolve(ucf_hmdb_manifest(), root)
    assert set(resolve(ucf_hmdb_manifest(), root, allow_partial=True)["domain"]) == {"ucf"}
    (tmp_path / "empty").mkdir()
    for wrong, text in (
        (tmp_path / "empty", "the folder is empty"),
        (tmp_path / "no", "folder missing"),
    ):
        with pytest.raises(NbkitError, match=text):
            resolve(ucf_hmdb_manifest(), wrong, allow_partial=True)
    with pytest.raises(NbkitError, match="it seems to be in"):
        resolve(ucf_hmdb_manifest(), root / "ucf101/UCF-101", allow_partial=True)


def test_olympic_layout(tmp_path):
    names = {"basketball_layup": ["a", "b", "c"], "pole_vault": ["d", "e", "f"]}
    for own, stems in names.items():
        for stem in stems:
            touch(tmp_path / own / f"{stem}.avi")
        write_text(
            tmp_path / f"train_test_split/train/{own}.txt", f"{stems[0]}\n{stems[1]}.seq\n", "\r\n"
        )
        write_text(tmp_path / f"train_test_split/test/{own}.txt", f"{own}/{stems[2]}.avi\n\n")
    manifest = small_manifest("ucf_olympic", ["basketball", "pole_vault"])
    table = resolve(manifest, tmp_path, allow_partial=True)
    assert table.groupby("split").size().to_dict() == {"train": 4, "test": 2}
    (tmp_path / "pole_vault/f.avi").rename(tmp_path / "pole_vault/f.seq")
    _, problems = scan(manifest, tmp_path)
    assert [p.kind for p in problems["olympic"]] == ["not used", "not converted"]


def _segments(rows):
    columns = ["uid", "participant_id", "video_id", "start_frame", "stop_frame", "verb_class"]
    return pd.DataFrame(rows, columns=columns)


def _epic_tree(root, frames=range(1, 41)):
    rgb, flow = root / "frames_rgb_flow/rgb/train", root / "frames_rgb_flow/flow/train"
    for kitchen, domain in (("P08", "D1"), ("P01", "D2"), ("P22", "D3")):
        rows = [[1, kitchen, f"{kitchen}_01", 2, 31, 0], [2, kitchen, f"{kitchen}_01", 5, 40, 1]]
        write_text(root / f"Annotations/{domain}_train.csv", _segments(rows).to_csv(index=False))
        test = _segments([[3, kitchen, f"{kitchen}_02", 1, 40, 1]])
        write_text(root / f"Annotations/{domain}_test.csv", test.to_csv())
        for video in ("01", "02"):
            write_jpegs(rgb / kitchen / f"{kitchen}_{video}", frames)
            for side in ("u", "v"):
                write_jpegs(
                    flow / kitchen / f"{kitchen}_{video}" / side, range(1, 21), 128, colour=False
                )
    return root


def test_epic_layout(tmp_path):
    manifest = small_manifest("epic_kitchens", ["take", "put"])
    table = resolve(manifest, _epic_tree(tmp_path))
    assert table.groupby(["domain", "split"]).size().to_dict() == {
        (d, s): n for d in ("D1", "D2", "D3") for s, n in (("train", 2), ("test", 1))
    }
    row = table[table["video"] == "D1/P08_01/1"].iloc[0]
    assert (row.class_name, row.start_frame, row.stop_frame, row.group) == ("take", 2, 31, "P08_01")
    assert row.path.endswith("rgb/train/P08/P08_01") and row.flow_path.endswith(
        "flow/train/P08/P08_01"
    )
    assert read_frames(source_of(row)).shape == (30, 32, 48, 3)


def test_epic_problems_are_named(tmp_path):
    manifest, root = small_manifest("epic_kitchens", ["take", "put"]), _epic_tree(tmp_path)
    (root / "frames_rgb_flow/rgb/train/P08/P08_02").rename(root / "gone")
    touch(root / "frames_rgb_flow/rgb/train/P08/P08_02.tar")
    (root / "frames_rgb_flow/rgb/train/P01/P01_01/frame_0000000040.jpg").unlink()
    (root / "frames_rgb_flow/flow/train/P22/P22_01/v").rename(root / "gone2")
    write_text(root / "Annotations/D3_test.csv", "uid,video_id\n1,P22_02\n")
    _, problems = scan(manifest, root)
    text = {d: " ".join(map(str, items)) for d, items in problems.items()}
    assert "extract P08_02.tar" in text["D1"] and "frame_0000000040.jpg" in text["D2"]
    assert "v (extract the flow archive)" in text["D3"] and "columns missing" in text["D3"]


def test_jhmdb_frames_instead_of_videos(tmp_path):
    names = {
        own: [jhmdb_clip(f"F{i}", own, "nm")[:-4] for i in range(3)]
        for own in ("golf", "walk", "shoot_ball")
    }
    for own, stems in names.items():
        for stem in stems:
            write_jpegs(tmp_path / "Rename_Images" / own / stem, [1, 2])
        lines = "".join(f"{stem}.avi {mark}\n" for stem, mark in zip(stems, (1, 1, 2)))
        write_text(tmp_path / f"splits/{own}_test_split1.txt", lines)
    table = resolve(load_manifest("jhmdb_ucf101"), tmp_path, allow_partial=True)
    assert table.groupby("split").size().to_dict() == {"train": 6, "test": 3}
    assert table["path"].iloc[0].endswith(names["golf"][0])


def test_only_the_needed_domains_have_to_be_whole(tmp_path):
    root = ucf_hmdb_tree(tmp_path / "data")
    (root / "hmdb51").rename(tmp_path / "gone")
    assert set(resolve(ucf_hmdb_manifest(), root, domains=["ucf"])["domain"]) == {"ucf"}
    with pytest.raises(NbkitError, match=r"\[hmdb\] dataset not found"):
        resolve(ucf_hmdb_manifest(), root, domains=["hmdb"], allow_partial=False)


def test_grouped_splits_need_all_domains(tmp_path):
    root = ucf_hmdb_tree(tmp_path / "data")
    data = ucf_hmdb_manifest(counts=False).model_dump()
    for spec in data["domains"].values():
        spec["split"] = {"rule": "grouped", "test_fraction": 0.5}
    grouped = Manifest.model_validate(data)
    whole = resolve(grouped, root)
    assert resolve(grouped, root, domains=["ucf"]).equals(
        whole[whole["domain"] == "ucf"].reset_index(drop=True)
    )
    counted = {
        d: spec
        | {"expected": [{"counts": {"all": int((whole["domain"] == d).sum())}, "verified": True}]}
        for d, spec in data["domains"].items()
    }
    stated = Manifest.model_validate(
        data | {"domains": counted}
    )  # the counts of the other domain are no matter
    assert len(resolve(stated, root, domains=["ucf"])) == (whole["domain"] == "ucf").sum()
    (root / "hmdb51").rename(tmp_path / "gone")
    with pytest.raises(NbkitError, match=r"\[hmdb\] dataset not found"):
        resolve(grouped, root, domains=["ucf"])


def test_all_train_is_obeyed_and_official_refused_where_there_are_no_lists(tmp_path):
    root = ucf_hmdb_tree(tmp_path)
    data = ucf_hmdb_manifest(counts=False).model_dump()
    data["domains"]["ucf"]["split"] = {"rule": "all_train"}
    table = resolve(Manifest.model_validate(data), root)
    assert set(table.loc[table["domain"] == "ucf", "split"]) == {"train"}
    assert set(table.loc[table["domain"] == "hmdb", "split"]) == {"train", "test"}
    arid = load_manifest("hmdb_arid").model_dump(mode="json")
    arid["domains"]["arid"]["split"] = {"rule": "official", "number": 1}
    path = write_text(tmp_path / "arid.yaml", yaml.safe_dump(arid))
    with pytest.raises(NbkitError, match="ARID has no official split lists"):
        load_manifest(path)


def test_a_class_without_a_video_is_a_problem(tmp_path):
    manifest = load_manifest("hmdb_arid")
    for members in manifest.domains["arid"].classes.values():
        for name in members:
            (tmp_path / "arid" / name).mkdir(parents=True)
    _, problems = scan(manifest, tmp_path)
    assert [p.kind for p in problems["arid"]] == ["no videos"] * len(manifest.classes)


def test_official_lists_of_a_marked_domain_name_no_clip_of_the_other_kind(tmp_path):
    for own in ("golf", "walk"):
        names = [
            jhmdb_clip(f"Film{i}", own, mark) for i, mark in enumerate(("nm", "cm", "nm", "cm"))
        ]
        for name in names:
            touch(tmp_path / "jhmdb/ReCompressed_Videos" / own / name)
        lines = "".join(f"{name} {1 + i // 2}\n" for i, name in enumerate(names))
        write_text(tmp_path / f"jhmdb/splits/{own}_test_split1.txt", lines)
    data = load_manifest("jhmdb_camera").model_dump()
    data |= {"classes": ["golf", "walk"]}
    for spec in data["domains"].values():
        spec |= {
            "classes": {c: [c] for c in data["classes"]},
            "split": {"rule": "official", "number": 1},
            "expected": [],
        }
    table = resolve(Manifest.model_validate(data), tmp_path)
    assert table.groupby(["domain", "split"]).size().to_dict() == {
        (d, s): 2 for d in data["domains"] for s in ("train", "test")
    }
