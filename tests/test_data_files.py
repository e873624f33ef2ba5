"""What is read from files: split lists, plain pickles that cannot run code, and folders of frames."""

import pickle
import pickletools

import numpy as np
import pytest
from fake_trees import write_jpegs
from hypothesis import given, settings
from hypothesis import strategies as st

from nbkit.benchmarks.layouts.jhmdb import camera_mark
from nbkit.benchmarks.safe_pickle import load_plain_pickle
from nbkit.benchmarks.split_lists import (
    hmdb_title,
    parse_class_index,
    parse_hmdb_list,
    parse_ucf_list,
    ucf_group,
)
from nbkit.data.frame_folders import find_flow, read_flow_images, read_frame_folder
from nbkit.errors import NbkitError

# ---- parsers
# ---------------------------------------------------------------------------------------------------------

LETTER = st.characters(blacklist_categories=("C", "Z"), blacklist_characters="/\\\ufeff")
NAME = st.text(LETTER, min_size=1, max_size=20)
END = st.sampled_from(["\n", "\r\n"])
TAIL = st.sampled_from(["", " ", "\t", " \t "])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAME, NAME, st.none() | st.integers(1, 101), TAIL)), END, st.booleans())
def test_ucf_list_round_trip(rows, end, mark):
    lines = [f"{c}/{f}.avi{'' if i is None else f' {i}'}{tail}" for c, f, i, tail in rows]
    text = ("\ufeff" if mark else "") + end.join([*lines, "", ""])
    assert parse_ucf_list(text) == [(f"{c}/{f}.avi", i) for c, f, i, _ in rows]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(NAME, min_size=1, max_size=3), st.integers(0, 2), TAIL)), END)
def test_hmdb_list_round_trip(rows, end):
    """Names may hold blanks, brackets and digits: only the last field is the mark."""
    text = end.join(f"{' '.join(words)}.avi {mark}{tail}" for words, mark, tail in rows)
    wanted = [
        (" ".join(words) + ".avi", ("unused", "train", "test")[mark]) for words, mark, _ in rows
    ]
    assert parse_hmdb_list(text) == wanted


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=120))
def test_parsers_answer_or_explain(text):
    for parse in (parse_ucf_list, parse_hmdb_list, parse_class_index):
        try:
            parse(text, "some list")
        except NbkitError as error:
            assert "some list, line" in str(error)


def test_parsers_name_the_line():
    with pytest.raises(NbkitError, match="a.txt, line 2"):
        parse_ucf_list("A/b.avi 1\nno_folder.avi 2\n", "a.txt")
    with pytest.raises(NbkitError, match="b.txt, line 1"):
        parse_hmdb_list("name.avi 3", "b.txt")
    assert parse_class_index("1 Apply Eye\r\n2 Archery\t\r\n") == {1: "Apply Eye", 2: "Archery"}


@pytest.mark.parametrize(
    ("stem", "own", "title"),
    [
        ("The_Fugitive_2_walk_u_cm_np1_fr_med_13", "walk", "the_fugitive"),
        ("walk_the_walk_walk_f_cm_np1_fr_med_1", "walk", "walk_the_walk"),
        ("21_pour_u_nm_np1_fr_goo_1", "pour", "21"),
        ("unmarked_3", "walk", "unmarked"),
    ],
)
def test_film_titles(stem, own, title):
    assert hmdb_title(stem, own) == title


def test_names():
    assert hmdb_title("A_2_walk_f_cm_np1_fr_med_1", "walk", merge_parts=False) == "a_2"
    assert ucf_group("v_Golf_g03_c12") == "g03" and ucf_group("other") == "other"
    assert camera_mark("x_cm_y_walk_f_nm_np2_fr_med_1.avi") == "nm" and camera_mark("x.avi") is None


# ---- plain pickles
# ---------------------------------------------------------------------------------------------------


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    evil, proof = tmp_path / "evil.pkl", tmp_path / "it_ran"
    for payload in (_Runs(proof), {"v": {"annotations": [_Runs(proof)]}}):
        for protocol in range(5):
            evil.write_bytes(pickle.dumps(payload, protocol=protocol))
            with pytest.raises(NbkitError, match="Nothing in it was run"):
                load_plain_pickle(evil)
    evil.write_bytes(b"cos\nsystem\n(S'touch it_ran'\ntR.")
    with pytest.raises(NbkitError, match="os.system"):
        load_plain_pickle(evil)
    assert not proof.exists()


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_pickles_are_explained(tmp_path_factory, noise, position):
    data = bytearray(pickle.dumps({"a": [np.arange(5, dtype=np.uint8), "text"]}, protocol=4))
    position %= len(data)
    data[position : position + len(noise)] = noise
    path = tmp_path_factory.mktemp("p") / "x.pkl"
    path.write_bytes(bytes(data))
    try:
        load_plain_pickle(path)
    except NbkitError as error:
        assert "x.pkl" in str(error)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", ">f8", "bool", "U3", "O"])
def test_plain_arrays_survive(tmp_path, protocol, dtype):
    value = np.array([[1, 2, 3], [4, 5, 6]]).astype(dtype)
    item = {
        "boxes": value,
        "same": value,
        "fortran": np.asfortranarray(value),
        "n": np.uint8(7),
        "t": (1, None, "x"),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(item, protocol=protocol))
    read = load_plain_pickle(path)
    for key in ("boxes", "fortran"):
        np.testing.assert_array_equal(read[key], value)
        assert read[key].dtype == value.dtype
    assert read["same"] is read["boxes"] and read["n"] == 7 and read["t"] == (1, None, "x")


def test_structured_and_huge_claims_are_refused(tmp_path):
    path = tmp_path / "s.pkl"
    path.write_bytes(pickle.dumps(np.zeros(2, dtype=[("a", "i4")]), protocol=4))
    with pytest.raises(NbkitError, match="s.pkl"):
        load_plain_pickle(path)
    path.write_bytes(pickle.dumps(np.zeros(3), protocol=4).replace(b"K\x03\x85", b"K\x64\x85"))
    assert "TUPLE1" in {o.name for o, _, _ in pickletools.genops(path.read_bytes())}
    with pytest.raises(NbkitError, match="s.pkl"):
        load_plain_pickle(path)
    path.write_bytes(
        b"\x80\x02K\x01r\xf0\xff\xff\x7f."
    )  # keeps the number 1 under index 2147483632
    assert load_plain_pickle(path) == 1
    with pytest.raises(NbkitError, match="cannot be read"):
        load_plain_pickle(tmp_path / "none.pkl")


# ---- frame folders
# ---------------------------------------------------------------------------------------------------


def test_frame_folder_order_and_errors(tmp_path):
    write_jpegs(tmp_path / "f", range(1, 13), lambda n: 10 * n)
    frames = read_frame_folder(tmp_path / "f", "frame_{:010d}.jpg", 9, 12)
    assert frames.shape == (4, 32, 48, 3) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [90, 100, 110, 120], atol=1)
    with pytest.raises(NbkitError, match="frame_0000000013.jpg: frame missing"):
        read_frame_folder(tmp_path / "f", "frame_{:010d}.jpg", 12, 13)
    with pytest.raises(NbkitError, match="valid range"):
        read_frame_folder(tmp_path / "f", "frame_{:010d}.jpg", 5, 4)
    (tmp_path / "f/frame_0000000002.jpg").write_bytes(b"")
    (tmp_path / "f/frame_0000000003.jpg").write_bytes(b"not a picture")
    for n in (2, 3):
        with pytest.raises(NbkitError, match="broken image"):
            read_frame_folder(tmp_path / "f", "frame_%010d.jpg", n, n)
    write_jpegs(tmp_path / "f", [4], size=(16, 16))
    with pytest.raises(NbkitError, match="differ in size"):
        read_frame_folder(tmp_path / "f", "frame_%010d.jpg", 4, 5)


def test_frame_folder_is_rgb(tmp_path):
    import cv2

    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 2] = 250  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / "frame_0000000001.jpg"), image)
    red, green, blue = read_frame_folder(tmp_path, "frame_%010d.jpg", 1, 1).mean((0, 1, 2))
    assert red > 240 and green < 10 and blue < 10


def test_flow_at_half_rate(tmp_path):
    """Two RGB frames share one flow image; 0, 128 and 255 stand for -clip, about 0 and +clip
    pixels.
    """
    write_jpegs(
        tmp_path / "u", range(1, 7), lambda n: (0, 51, 102, 128, 204, 255)[n - 1], colour=False
    )
    write_jpegs(tmp_path / "v", range(1, 7), 128, colour=False)
    flow = read_flow_images(find_flow(tmp_path), 1, 12, 0.5)
    assert flow.shape == (12, 32, 48, 2) and flow.dtype == np.float32
    wanted = np.array([-20, -12, -4, 128 / 255 * 40 - 20, 12, 20]).repeat(2)
    np.testing.assert_allclose(flow[..., 0].mean((1, 2)), wanted, atol=0.2)
    assert np.abs(flow[..., 1]).max() < 0.1
    part = read_flow_images(find_flow(tmp_path), 4, 5, 0.5)
    np.testing.assert_array_equal(part, flow[3:5])


def test_flow_ends_before_the_video_but_gaps_are_errors(tmp_path):
    for side in ("u", "v"):
        write_jpegs(tmp_path / side, range(1, 7), lambda n: 40 * n, colour=False)
    flow = read_flow_images(find_flow(tmp_path), 9, 16, 0.5)
    np.testing.assert_array_equal(flow[-1], flow[3])  # image 6 stands in for 7 and 8
    with pytest.raises(NbkitError, match="frame missing"):
        read_flow_images(find_flow(tmp_path), 20, 30, 0.5)
    (tmp_path / "u/frame_0000000005.jpg").unlink()
    with pytest.raises(NbkitError, match="0000000005.jpg: frame missing"):
        read_flow_images(find_flow(tmp_path), 9, 10, 0.5)
    with pytest.raises(NbkitError, match="rate"):
        read_flow_images(find_flow(tmp_path), 1, 2, 0.0)
