"""What is read from files: plain pickles that cannot run code, and folders of frames."""

import pickle
import pickletools

import numpy as np
import pytest
from fake_trees import write_jpegs
from hypothesis import given, settings
from hypothesis import strategies as st

from nbkit.data.safe_pickle import load_plain_pickle
from nbkit.data.sources import Source, find_flow, one_by_one, read_flow_images, read_frames
from nbkit.errors import NbkitError

# --- plain pickles --------------------------------------------------------------------------------


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


# --- frame folders --------------------------------------------------------------------------------


def test_segment_order_and_errors(tmp_path):
    def segment(start, stop):
        return read_frames(Source(str(tmp_path), start, stop))

    write_jpegs(tmp_path, range(1, 13), lambda n: 10 * n)
    frames = segment(9, 12)
    assert frames.shape == (4, 32, 48, 3) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [90, 100, 110, 120], atol=1)
    with pytest.raises(NbkitError, match="frame_0000000013.jpg: frame missing"):
        segment(12, 13)
    (tmp_path / "frame_0000000002.jpg").write_bytes(b"")
    (tmp_path / "frame_0000000003.jpg").write_bytes(b"not a picture")
    for n in (2, 3):
        with pytest.raises(NbkitError, match=f"frame_000000000{n}.jpg: broken image"):
            segment(n, n)
    write_jpegs(tmp_path, [4], size=(16, 16))
    with pytest.raises(NbkitError, match="differ in size"):
        segment(4, 5)


def test_images_are_rgb(tmp_path):
    import cv2

    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 2] = 250  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    red, green, blue = next(one_by_one([tmp_path / "a.jpg"])).mean((0, 1))
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
