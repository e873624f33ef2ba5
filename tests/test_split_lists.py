"""Published split lists, and what the names of videos say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbkit.benchmarks.split_lists import (
    HMDB_LINE,
    NAME_LINE,
    UCF_LINE,
    arid_group,
    camera_mark,
    film_title,
    parse_list,
    read_list,
    ucf_group,
)
from nbkit.errors import NbkitError

LETTER = st.characters(blacklist_categories=("C", "Z"), blacklist_characters="/\\\ufeff")
NAME = st.text(LETTER, min_size=1, max_size=20)
END = st.sampled_from(["\n", "\r\n"])
TAIL = st.sampled_from(["", " ", "\t", " \t "])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAME, NAME, st.none() | st.integers(1, 101), TAIL)), END, st.booleans())
def test_ucf_list_round_trip(rows, end, mark):
    lines = [f"{c}/{f}.avi{'' if i is None else f' {i}'}{tail}" for c, f, i, tail in rows]
    text = ("\ufeff" if mark else "") + end.join([*lines, "", ""])
    assert parse_list(text, UCF_LINE) == [(c, f"{f}.avi", "") for c, f, _, _ in rows]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(NAME, min_size=1, max_size=3), st.integers(0, 2), TAIL)), END)
def test_hmdb_list_round_trip(rows, end):
    """Names may hold blanks, brackets and digits: only the last field is the mark."""
    text = end.join(f"{' '.join(words)}.avi {mark}{tail}" for words, mark, tail in rows)
    splits = ("unused", "train", "test")
    wanted = [("", " ".join(words) + ".avi", splits[mark]) for words, mark, _ in rows]
    assert parse_list(text, HMDB_LINE) == wanted


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=120))
def test_parsers_answer_or_explain(text):
    for form in (UCF_LINE, HMDB_LINE, NAME_LINE):
        try:
            parse_list(text, form, "some list")
        except NbkitError as error:
            assert "some list, line" in str(error)


def test_parsers_name_the_line():
    with pytest.raises(NbkitError, match="a.txt, line 2"):
        parse_list("A/b.avi 1\nno_folder.avi 2\n", UCF_LINE, "a.txt")
    with pytest.raises(NbkitError, match="b.txt, line 1"):
        parse_list("name.avi 3", HMDB_LINE, "b.txt")


def test_windows_paths_plain_names_and_old_encodings(tmp_path):
    assert parse_list("A\\b 1.avi 12\t\r\n", UCF_LINE) == [("A", "b 1.avi", "")]
    assert parse_list("a/b c.avi\n\nd.seq", NAME_LINE) == [("", "b c.avi", ""), ("", "d.seq", "")]
    for encoding in ("utf-8-sig", "latin-1"):
        (tmp_path / "list.txt").write_text("Größe.avi 1\n", encoding=encoding)
        assert read_list(tmp_path / "list.txt", HMDB_LINE) == [("", "Größe.avi", "train")]


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
    assert film_title(own, stem) == title


def test_names():
    assert ucf_group("Golf", "v_Golf_g03_c12") == "Golf/g03"
    assert ucf_group("Golf", "other") == "Golf/other"
    assert arid_group("Run", "Run_3_12") == "Run_3" and arid_group("Run", "Run-3") == ""
    assert camera_mark("x_cm_y_walk_f_nm_np2_fr_med_1.avi") == "nm" and camera_mark("x.avi") is None
