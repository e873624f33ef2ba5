"""I3D: published names and shapes, golden outputs, padding, the localizer's two parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from nbkit.errors import NbkitError
from nbkit.models.i3d import (
    ENDPOINTS,
    LAYERS,
    ClipFeatureEncoder,
    FrozenI3D,
    InceptionI3D,
    pad_same,
    same_padding,
)
from nbkit.models.weights import (
    PUBLISHED,
    find_weights,
    load_pretrained,
    read_state,
    weights_folder,
)

# Every 300th of the 1024 features of two clips, (2, C, 16, 64, 48).  The weights are seeded; under
# such weights our outputs equal those of the public module (benchmarks/backbone_parity.py).
GOLDEN = {
    (3, "eval"): [1.88958, 3.11166, 0.43352, 5.73655, 1.76358, 2.91296, 0.4815, 5.97532],
    (3, "train"): [0.19135, 0.62039, 0.36056, 0.0, 0.53832, 0.22493, 0.12531, 0.84158],
    (2, "eval"): [2.97371, 0.0, 0.31251, 2.07101, 2.90507, 0.0, 0.29704, 1.57225],
    (2, "train"): [0.42972, 0.05342, 0.25853, 0.0, 0.04463, 0.85053, 0.46509, 0.78959],
}
# weights: the stream that they are for, and the least probability of the clip's class
SAMPLE = {"i3d_rgb": ("rgb", 0.99), "i3d_flow": ("flow", 0.6), "kinetics400": ("rgb", 0.98)}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def seeded(channels: int = 3) -> InceptionI3D:
    model = InceptionI3D(channels)
    model.load_state_dict(seeded_state(model, 0))
    return model


def clips(channels: int = 3, shape=(16, 64, 48)) -> torch.Tensor:
    x = torch.tensor(np.random.default_rng(1).random((2, channels, *shape)), dtype=torch.float32)
    return x if channels == 3 else 2 * x - 1


@pytest.mark.parametrize(("channels", "mode"), GOLDEN)
def test_golden_outputs(channels, mode):
    model = seeded(channels).train(mode == "train")
    with torch.no_grad():
        found = model(clips(channels))[:, ::300].flatten()
    torch.testing.assert_close(found, torch.tensor(GOLDEN[channels, mode]), rtol=1e-4, atol=1e-4)


def test_names_and_shapes_of_the_published_files():
    for channels in (3, 2):
        state = InceptionI3D(channels).state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        assert len(shapes) == 57 * 6  # 57 units: a kernel, five tensors of normalisation
        assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, channels, 7, 7, 7)
        assert shapes["Mixed_3b.b0.conv3d.weight"] == (64, 192, 1, 1, 1)
        assert shapes["Mixed_3b.b0.bn.running_var"] == (64,)
        assert shapes["Mixed_5c.b3b.conv3d.weight"] == (128, 832, 1, 1, 1)


def test_the_table_of_modules_joins_up():
    mixed = {name: values for name, (_, values) in LAYERS.items() if name.startswith("Mixed")}
    names = list(mixed)
    for name, following in zip(names, names[1:], strict=False):
        _, one, first, second, proj = mixed[name]
        assert one + first[1] + second[1] + proj == mixed[following][0], name


@pytest.mark.parametrize("size", range(1, 18))
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (7, 2)])
def test_same_padding_rounds_the_size_up_and_puts_the_odd_cell_after(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    if (size - 1) % stride + kernel > stride:  # otherwise nothing needs padding
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1


def test_padding_goes_to_the_right_axes():
    x = torch.ones(1, 1, 4, 5, 7)
    padded = pad_same(x, (1, 3, 7), (1, 2, 2))
    assert padded.shape == (1, 1, 4, 7, 13) and padded.sum() == x.sum()
    assert padded[0, 0, 0, 0].sum() == 0 and padded[0, 0, 0, -1].sum() == 0
    assert padded[0, 0, 0, 1, 3] == 1


def test_shapes_of_the_endpoints():
    model = seeded().eval()
    expected = {
        "Conv3d_2c_3x3": (192, 8, 16, 12), "Mixed_3c": (480, 8, 8, 6), "Mixed_4e": (528, 4, 4, 3),
        "Mixed_4f": (832, 4, 4, 3), "Mixed_5c": (1024, 2, 2, 2),
    }  # fmt: skip
    with torch.no_grad():
        for end, shape in expected.items():
            assert model.features(clips()[:1], end).shape == (1, *shape)


def test_sixteen_frames_of_224_leave_one_position_and_longer_ones_are_averaged():
    model = InceptionI3D(3)
    assert model.pool(torch.rand(1, 1024, 2, 7, 7)).shape == (1, 1024, 1, 1, 1)
    assert model.pool(torch.rand(1, 1024, 4, 8, 9)).shape == (1, 1024, 3, 2, 3)
    small = torch.rand(1, 1024, 1, 3, 2)  # 8 frames of 96 x 64: smaller than the window
    torch.testing.assert_close(model.pool(small)[..., 0, 0, 0], small.mean((2, 3, 4)))


def test_tf1_then_tf2_is_the_network_when_the_pool_is_kept():
    model = seeded().eval()
    with torch.no_grad():
        middle = model.features(clips(), "Mixed_4e")
        assert middle.shape == (2, 528, 4, 4, 3)
        torch.testing.assert_close(
            model.tf2(middle, pool5a=True), model.features(clips()).mean((2, 3, 4))
        )
        later = model.features(clips(), "Mixed_4f")
        torch.testing.assert_close(model.tf2(later, "Mixed_4f"), model.tf2(middle))
        assert model.tf2(torch.rand(3, 528, 7, 7)).shape == (3, 1024)


def test_one_step_in_time_sees_only_the_centre_slice_of_the_kernels():
    model, roi = seeded().eval(), torch.rand(2, 528, 5, 5)
    with torch.no_grad():
        before = model.tf2(roi)
        for name, weight in model.named_parameters():
            late = name.startswith(("Mixed_4f", "Mixed_5"))
            if late and weight.dim() == 5 and weight.shape[2] == 3:
                weight[:, :, [0, 2]] = 100.0
        torch.testing.assert_close(model.tf2(roi), before)


def test_input_goes_to_minus_one_to_one_and_is_checked():
    x = torch.tensor([0.0, 0.25, 1.0])
    assert InceptionI3D(3).normalise(x).tolist() == [-1.0, -0.5, 1.0]
    assert InceptionI3D(2).normalise(x).tolist() == x.tolist()
    with pytest.raises(NbkitError, match="divide bytes by 255"):
        InceptionI3D(3)(clips() * 255)
    with pytest.raises(NbkitError, match="takes "):
        InceptionI3D(2)(clips())
    with pytest.raises(NbkitError, match="takes "):
        InceptionI3D(3)(clips()[:, :, 0])


def test_gradients_reach_the_first_layer():
    model = seeded()
    model(clips()[:, :, :8, :32, :32]).square().mean().backward()
    assert model.Conv3d_1a_7x7.conv3d.weight.grad.abs().max() > 0
    assert len(ENDPOINTS) == 16 and model.gradcam_layers == [model.Mixed_5c]


@pytest.mark.parametrize("weights", SAMPLE)
def test_the_published_clip_with_the_published_weights(weights, monkeypatch):
    """The top class, nearly certain.

    The clip is a GIF of 256 colours, so the published digits cannot be met.
    """
    from real_data import real_path

    (stream, least), folder = SAMPLE[weights], real_path("i3d_sample")

    def refuse(*_):
        raise OSError("no download in a test")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    try:
        file = find_weights(weights)
    except NbkitError:
        pytest.skip(f"{PUBLISHED[weights].file} is neither installed nor in {weights_folder()}")
    image = pytest.importorskip("PIL.Image").open(next(folder.glob(f"*_{stream}.gif")))
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
    x = torch.tensor(np.stack(frames)).permute(3, 0, 1, 2)[None]  # (1, 3, T, 224, 224)
    if stream == "flow":
        x = x[:, :2] * 2 - 1  # the third colour is constant
    model = InceptionI3D(x.shape[1]).eval()
    load_pretrained(model, file)
    state = read_state(file)
    kernel, bias = state["logits.conv3d.weight"], state["logits.conv3d.bias"]
    with torch.no_grad():
        pooled = model.pool(model.features(x))  # (1, 1024, positions)
        logits = torch.nn.functional.conv3d(pooled, kernel, bias).mean((2, 3, 4))  # (1, 400)
    probabilities = logits.softmax(1)[0]
    labels = (folder / "label_map.txt").read_text().splitlines()
    assert labels[probabilities.argmax()] == "playing cricket"
    assert probabilities.max() > least


def test_the_frozen_network_is_the_network_in_evaluation_mode(tmp_path):
    model = seeded(2).eval()
    torch.save(model.state_dict(), tmp_path / "flow.pt")
    frozen, x = FrozenI3D(2, tmp_path / "flow.pt"), clips(2)
    with torch.no_grad():
        expected = model(x)
    error = (frozen.clip_features(x) - expected).norm() / expected.norm()
    assert error < (0.05 if frozen.half else 1e-4)
    frozen.half = False
    assert torch.allclose(frozen.clip_features(x), expected, rtol=1e-3, atol=1e-3)
    assert frozen.key.startswith("i3d-2-") and not frozen.network.training


def test_the_head_on_clip_features_standardises_them():
    head = ClipFeatureEncoder("per_domain", dropout=0.0).train()
    out = head(torch.rand(64, 1, 1024) * 3 + 1)
    assert out.shape == (64, 1024) and head.sees_order
    assert out.mean().abs() < 1e-3 and abs(float(out.var(0).mean()) - 1) < 0.05
