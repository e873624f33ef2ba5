"""The manifest schema, the shipped manifests, and their counts against the published lists where
those are present.
"""

import shutil
from typing import get_args

import pytest
import yaml
from fake_trees import save_manifest, touch, ucf_hmdb_manifest, ucf_hmdb_tree
from real_data import real_path

from nbkit.benchmarks.epic import read_segments
from nbkit.benchmarks.layouts import LAYOUTS
from nbkit.benchmarks.manifest import (
    MANIFEST_DIR,
    DomainSpec,
    EpicOptions,
    ExpectedCounts,
    FlowSpec,
    Layout,
    Manifest,
    SplitSpec,
    VideoOptions,
    available_manifests,
    load_manifest,
)
from nbkit.benchmarks.resolve import check_counts, resolve
from nbkit.benchmarks.split_lists import HMDB_LINE, UCF_LINE, read_list
from nbkit.errors import NbkitError

NAMES = available_manifests()


def test_the_benchmarks_of_the_papers_are_there():
    wanted = {
        "ucf_hmdb_small",
        "ucf_olympic",
        "ucf_hmdb_full",
        "epic_kitchens",
        "ucfsports_ucf101",
        "jhmdb_ucf101",
    }
    assert wanted | {"demo", "jhmdb_camera", "hmdb_arid"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_manifest_is_valid_and_named_after_its_file(name):
    manifest = load_manifest(name)
    assert manifest.benchmark == name
    for spec in manifest.domains.values():
        assert spec.licence and spec.citation and spec.homepage


def test_epic_has_all_six_directions():
    domains = ("D1", "D2", "D3")
    assert set(load_manifest("epic_kitchens").directions) == {
        (a, b) for a in domains for b in domains if a != b
    }


def _damaged(tmp_path, change):
    data = ucf_hmdb_manifest().model_dump(mode="json")
    change(data)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(fpz=25), "fpz"),
        (lambda d: d["domains"]["ucf"].update(colour="red"), "domains.ucf.colour"),
        (lambda d: d["domains"]["ucf"].update(layout="ufc101"), "ufc101"),
        (lambda d: d["domains"]["ucf"]["options"].update(vids="x"), "domains.ucf.options.*vids"),
        (lambda d: d["domains"]["ucf"].update(options={"domain": "D1"}), "options.*domain"),
        (lambda d: d["domains"]["ucf"].update(layout="epic", options={}), "options.*domain"),
        (lambda d: d["domains"]["ucf"]["classes"].pop("golf"), "golf"),
        (lambda d: d["domains"]["ucf"]["classes"].update(golf=["PullUps"]), "used twice"),
        (lambda d: d.update(classes=["golf", "golf"]), "listed twice"),
        (lambda d: d.update(directions=[["ucf", "ucf"]]), "directions"),
        (
            lambda d: d["domains"]["ucf"]["expected"][0].update(per_class={"train": {"gulf": 4}}),
            "gulf",
        ),
        (
            lambda d: d["domains"]["ucf"]["expected"][0].update(
                per_class={"train": {"golf": 3, "pullup": 9}}
            ),
            "sum",
        ),
        (lambda d: d["domains"]["ucf"]["split"].update(rule="random"), "split.rule"),
        (lambda d: d.pop("fps"), "fps"),
    ],
)
def test_a_bad_field_is_named(tmp_path, change, message):
    with pytest.raises(NbkitError, match=message):
        load_manifest(_damaged(tmp_path, change))


def test_unreadable_and_unknown_manifests(tmp_path):
    with pytest.raises(NbkitError, match="Did you mean 'ucf_hmdb_full'"):
        load_manifest("ucf_hmdb_ful")
    with pytest.raises(NbkitError, match="no such manifest file"):
        load_manifest(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("benchmark: [")
    with pytest.raises(NbkitError, match="not a readable YAML"):
        load_manifest(broken)
    broken.write_text("!!python/object/apply:os.system ['touch /tmp/never']")
    with pytest.raises(NbkitError, match="not a readable YAML"):
        load_manifest(broken)
    broken.write_text("")
    with pytest.raises(NbkitError, match="broken.yaml"):
        load_manifest(broken)


def test_a_manifest_survives_writing_and_reading(tmp_path):
    manifest = ucf_hmdb_manifest()
    assert load_manifest(save_manifest(manifest, tmp_path)) == manifest


# --- resolve and counts --------------------------------------------------------------------------
def test_counts_that_differ_are_an_error_unless_partial(tmp_path):
    manifest, root = ucf_hmdb_manifest(), ucf_hmdb_tree(tmp_path)
    table = resolve(manifest, root)
    assert {r.status for r in check_counts(manifest, table)} == {"ok"}
    fewer = table.iloc[1:]
    with pytest.raises(NbkitError, match="hmdb train: 3 instead of 4"):
        check_counts(manifest, fewer)
    rows = check_counts(manifest, fewer, allow_partial=True)
    assert [r.status for r in rows].count("mismatch") == 1


def test_unverified_counts_only_report(tmp_path):
    data = ucf_hmdb_manifest().model_dump()
    data["domains"]["ucf"]["expected"][0].update(verified=False, counts={"train": 99})
    rows = check_counts(
        Manifest.model_validate(data), resolve(ucf_hmdb_manifest(), ucf_hmdb_tree(tmp_path))
    )
    assert [r.status for r in rows if r.domain == "ucf" and r.split == "train"] == ["differs"]


@pytest.mark.parametrize(
    ("number", "train", "test"), [(1, 1438, 571), (2, 1457, 552), (3, 1453, 556)]
)
def test_ucf_counts_of_the_official_lists(number, train, test):
    manifest = load_manifest("ucf_hmdb_full").with_split_number(number)
    spec = manifest.domains["ucf"]
    assert spec.expected_now().counts == {"train": train, "test": test}
    for name in ("ucf_hmdb_full", "ucf_hmdb_small", "ucf_olympic"):
        _check_ucf_lists(load_manifest(name).with_split_number(number).domains["ucf"], number)


def _check_ucf_lists(spec, number):
    lists, expected = real_path("ucf101", "ucfTrainTestlist"), spec.expected_now()
    for split in ("train", "test"):
        path = lists / f"{split}list{number:02d}.txt"
        assert b"\r\n" in path.read_bytes()
        owns = [entry.own for entry in read_list(path, UCF_LINE)]
        found = [spec.common_class[own] for own in owns if own in spec.common_class]
        if expected:
            assert len(found) == expected.counts[split]
            for class_name, n in expected.per_class.get(split, {}).items():
                assert found.count(class_name) == n, class_name


@pytest.mark.parametrize("name", ["ucf_hmdb_full", "ucf_hmdb_small"])
def test_hmdb_counts_of_the_official_lists(name):
    lists = real_path("hmdb51", "testTrainMulti_7030_splits")
    for number in (1, 2, 3):
        spec = load_manifest(name).with_split_number(number).domains["hmdb"]
        total = {"train": 0, "test": 0, "unused": 0}
        for members in spec.classes.values():
            path = lists / f"{members[0]}_test_split{number}.txt"
            parts = [entry.split for entry in read_list(path, HMDB_LINE)]
            assert (parts.count("train"), parts.count("test")) == (70, 30)
            total = {k: total[k] + parts.count(k) for k in total}
        assert spec.expected_now().counts == {k: total[k] for k in ("train", "test")}


def test_the_whole_ucf_hmdb_benchmark_resolves_from_the_official_lists(tmp_path):
    """Empty files under the official names: folder reading, mapping, splits and counts together."""
    manifest = load_manifest("ucf_hmdb_full")
    shutil.copytree(real_path("ucf101", "ucfTrainTestlist"), tmp_path / "ucf101/ucfTrainTestlist")
    shutil.copytree(
        real_path("hmdb51", "testTrainMulti_7030_splits"),
        tmp_path / "hmdb51/testTrainMulti_7030_splits",
    )
    for split in ("train", "test"):
        path = tmp_path / f"ucf101/ucfTrainTestlist/{split}list01.txt"
        for entry in read_list(path, UCF_LINE):
            if entry.own in manifest.domains["ucf"].common_class:
                touch(tmp_path / "ucf101/UCF-101" / entry.own / entry.file)
    for own in manifest.domains["hmdb"].common_class:
        path = tmp_path / f"hmdb51/testTrainMulti_7030_splits/{own}_test_split1.txt"
        for entry in read_list(path, HMDB_LINE):
            touch(tmp_path / "hmdb51" / own / entry.file)
    table = resolve(manifest, tmp_path)
    sizes = table.groupby(["domain", "split"]).size().to_dict()
    assert sizes == {
        ("ucf", "train"): 1438,
        ("ucf", "test"): 571,
        ("hmdb", "train"): 840,
        ("hmdb", "test"): 360,
    }
    for domain, part in table.groupby("domain"):
        if domain == "ucf":  # official UCF101 splits keep recording groups together
            assert not set(part[part.split == "train"].group) & set(
                part[part.split == "test"].group
            )


@pytest.mark.parametrize("domain", ["D1", "D2", "D3"])
def test_epic_counts_of_the_published_tables(domain):
    spec = load_manifest("epic_kitchens").domains[domain]
    expected = spec.expected_now()
    videos = {}
    for split in ("train", "test"):
        table = read_segments(real_path("epic_mm_sada", f"{domain}_{split}.pkl"))
        assert len(table) == expected.counts[split]
        assert (table["stop_frame"] - table["start_frame"]).min() == 30
        assert set(table["participant_id"]) == {spec.dataset.split()[-1]}
        assert table["uid"].is_unique
        for class_name, n in expected.per_class[split].items():
            assert (table["verb_class"] == int(spec.classes[class_name][0])).sum() == n
        videos[split] = set(table["video_id"])
    assert not videos["train"] & videos["test"]
    sizes = {"D1": (22, 6), "D2": (14, 5), "D3": (13, 4)}
    assert (len(videos["train"]), len(videos["test"])) == sizes[domain]


@pytest.mark.parametrize("name", ["jhmdb_camera", "jhmdb_camera_boxes", "hmdb_arid"])
def test_laptop_benchmarks_resolve_from_real_folders(name):
    root = real_path("jhmdb").parent
    real_path("arid")
    table = resolve(load_manifest(name), root)  # counts are checked inside
    assert table["video"].is_unique and table["path"].str.startswith(str(root)).all()
    again = resolve(load_manifest(name), root)
    assert table.equals(again)


def test_two_classes_of_the_localization_benchmark_resolve_from_real_folders():
    real_path("ucf101_24", "pyannot.pkl")
    real_path("jhmdb", "puppet_mask")
    table = resolve(load_manifest("jhmdb_ucf101_two"), real_path("ucf101_24").parent)
    sizes = table.groupby(["domain", "split"]).size().to_dict()
    assert sizes == {
        ("jhmdb", "train"): 58,
        ("jhmdb", "test"): 23,
        ("ucf101", "train"): 186,
        ("ucf101", "test"): 71,
    }
    assert (table["boxes"] != "").all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_three_classes_of_ucf_and_hmdb_resolve_from_real_folders(number):
    root = real_path("ucf101", "UCF-101", "PullUps").parents[2]
    real_path("jhmdb", "splits")
    table = resolve(load_manifest("ucf_hmdb_three").with_split_number(number), root)
    assert table.groupby("domain").size().to_dict() == {"hmdb": 136, "ucf": 357}
    parts = table[table["domain"] == "ucf"].groupby("split")["group"].agg(set)
    assert not parts["train"] & parts["test"]  # of J-HMDB's lists this does not hold


def test_jhmdb_source_of_the_localization_benchmark():
    real_path("jhmdb", "puppet_mask")
    table = resolve(load_manifest("jhmdb_ucf101"), real_path("jhmdb").parent, allow_partial=True)
    part = table[table["domain"] == "jhmdb"]
    assert part.groupby("split").size().to_dict() == {"train": 88, "test": 35}
    assert part["boxes"].str.endswith("puppet_mask.mat").all()


def test_the_manual_names_every_field_layout_and_option():
    manual = (MANIFEST_DIR.parent / "docs" / "MANIFESTS.md").read_text(encoding="utf-8")
    models = (Manifest, DomainSpec, SplitSpec, ExpectedCounts, FlowSpec, VideoOptions, EpicOptions)
    fields = [name for model in models for name in model.model_fields]
    assert [name for name in [*fields, *LAYOUTS] if f"`{name}`" not in manual] == []


def test_every_layout_name_has_a_reader():
    assert set(get_args(Layout)) == set(LAYOUTS)
