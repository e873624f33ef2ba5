"""BN-Inception: the published names and shapes, golden outputs, input conventions, and the bad
input it refuses.
"""

import numpy as np
import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.models.bn_inception import BLOCKS, BNInception, all_units
from nbkit.models.inputs import adapt_first_conv, check_range, modality_of
from nbkit.models.weights import seeded_state

# Every 300th of the 1024 clip features of two clips, (2, C, 4, 64, 96), and the logits of the
# second one.  The weights are seeded; under such weights our outputs equal those of the public
# module (benchmarks/backbone_parity.py).
GOLDEN = {
    (3, "eval"): (
        [309.83243, 170.60481, 98.05741, 0.0, 295.91962, 169.59666, 89.28349, 0.0],
        [-303.69342, -5.26166, -547.41187, -70.60737, -365.06979],
    ),
    (3, "train"): (
        [0.44687, 0.58389, 0.43401, 0.52071, 0.39919, 0.25323, 0.45338, 0.15473],
        [0.99384, -0.59475, -0.9099, -0.07465, -0.28679],
    ),
    (2, "eval"): (
        [78.20023, 628.98718, 37.0465, 0.0, 81.03326, 649.38635, 42.75447, 0.0],
        [122.29522, 441.74841, -721.47174, 582.27399, -219.37141],
    ),
    (2, "train"): (
        [0.29716, 0.24758, 0.40078, 0.43101, 0.40761, 0.57693, 0.50777, 0.12476],
        [-0.27114, 0.81228, -0.08648, 0.95337, -0.51093],
    ),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def seeded(channels: int = 3, classes: int | None = 5) -> BNInception:
    model = BNInception(channels, classes)
    model.load_state_dict(seeded_state(model, 0))
    return model


def clips(channels: int, shape=(4, 64, 96)) -> torch.Tensor:
    x = torch.tensor(np.random.default_rng(1).random((2, channels, *shape)), dtype=torch.float32)
    return x if channels == 3 else 2 * x - 1


@pytest.mark.parametrize(("channels", "mode"), GOLDEN)
def test_golden_outputs(channels, mode):
    features, logits = GOLDEN[channels, mode]
    model = seeded(channels).train(mode == "train")
    with torch.no_grad():
        pooled = model.clip_features(clips(channels))
        torch.testing.assert_close(
            pooled[:, ::300].flatten(), torch.tensor(features), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            model.last_linear(pooled)[1], torch.tensor(logits), rtol=1e-4, atol=1e-3
        )


def test_names_and_shapes_of_the_published_file():
    shapes = {k: tuple(v.shape) for k, v in BNInception(3, 1000).state_dict().items()}
    assert len(all_units(3)) == 69 and len(shapes) == 69 * 7 + 2
    assert shapes["conv1_7x7_s2.weight"] == (64, 3, 7, 7) and shapes[
        "conv1_7x7_s2_bn.running_mean"
    ] == (64,)
    assert shapes["inception_3a_1x1.weight"] == (64, 192, 1, 1) and shapes[
        "inception_3a_1x1.bias"
    ] == (64,)
    assert shapes["inception_4e_double_3x3_2.weight"] == (256, 256, 3, 3)
    assert shapes["inception_5b_pool_proj_bn.weight"] == (128,) and shapes[
        "last_linear.weight"
    ] == (1000, 1024)
    assert not any(k.startswith(("inception_3c_1x1", "inception_4e_pool_proj")) for k in shapes)
    assert sum(p.numel() for p in BNInception(3, 1000).parameters()) == 11_295_240


def test_the_table_of_blocks_joins_up():
    names = list(BLOCKS)
    for block, following in zip(names, names[1:], strict=False):
        c_in, one, three, double, _, proj = BLOCKS[block]
        assert one + three[1] + double[1] + (proj or c_in) == BLOCKS[following][0], block


def test_a_clip_is_the_mean_of_its_frames():
    model, x = seeded(classes=None).eval(), clips(3, (3, 64, 64))
    with torch.no_grad():
        frames = torch.stack([model(x[:, :, t]) for t in range(3)])  # (T, N, 1024)
        torch.testing.assert_close(model(x), frames.mean(0), rtol=1e-4, atol=1e-3)
        assert model.features(x[:, :, 0]).shape == (2, 1024, 2, 2)


def test_normalisation_gives_bgr_bytes_less_the_mean_and_still_flow_stays_zero():
    red = torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1)
    expected = torch.tensor([0.2 * 255 - 104, -117.0, 255 - 128.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(BNInception(3).normalise(red), expected)
    flow = torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1)
    assert BNInception(2).normalise(flow).flatten().tolist() == [-127.5, 0.0]


@pytest.mark.parametrize("side", [32, 64, 224, 256])
def test_sides_that_work(side):
    from nbkit.models.bn_inception import _side_at_3c

    assert _side_at_3c(side) == side // 8


def test_a_side_that_cannot_be_halved_is_refused_where_the_branches_would_not_join():
    model = seeded().eval()
    for side in (16, 48, 112):
        with pytest.raises(NbkitError, match="multiple of 32"):
            model.features(torch.rand(1, 3, 64, side))
    for side in (63, 65, 70):  # not multiples, but the branches join
        assert model.features(torch.rand(1, 3, 64, side)).shape == (1, 1024, 2, 2)


def test_gradients_reach_the_first_layer_and_the_input_is_left_alone():
    model, x = seeded(), clips(3, (2, 32, 32))
    before = x.clone()
    model(x).square().mean().backward()
    assert model.conv1_7x7_s2.weight.grad.abs().max() > 0 and torch.equal(x, before)


def test_first_layer_for_flow_is_the_mean_of_the_rgb_kernels():
    weight = torch.randn(4, 3, 7, 7)
    adapted = adapt_first_conv(weight, 10)
    assert adapted.shape == (4, 10, 7, 7)
    for channel in range(10):
        torch.testing.assert_close(
            adapted[:, channel], (weight[:, 0] + weight[:, 1] + weight[:, 2]) / 3
        )
    grey = torch.randn(
        1, 1, 9, 9
    )  # the same plane in every channel: the response is in_channels / 3 times that of RGB
    out = torch.nn.functional.conv2d(grey.expand(1, 10, 9, 9), adapted) * 3 / 10
    torch.testing.assert_close(
        out, torch.nn.functional.conv2d(grey.expand(1, 3, 9, 9), weight), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("x", "modality", "says"),
    [
        (torch.rand(2, 3, 4, 4) * 255, "rgb", "divide bytes by 255"),
        (torch.randint(0, 255, (2, 3, 4, 4), dtype=torch.uint8), "rgb", "uint8"),
        (torch.rand(2, 3, 4, 4) / 255, "rgb", "divided by 255 twice"),
        (torch.rand(2, 3, 4, 4) * 2 - 1, "rgb", "mean and standard deviation"),
        (torch.full((1, 3, 2, 2), float("nan")), "rgb", "not finite"),
        (torch.full((1, 2, 2, 2), float("inf")), "flow", "not finite"),
        (torch.rand(2, 2, 4, 4) * 40 - 20, "flow", "flow_clip"),
        (torch.rand(2, 2, 4, 4) * 255, "flow", "dequantise"),
    ],
)
def test_values_out_of_range_are_refused(x, modality, says):
    with pytest.raises(NbkitError, match=says):
        check_range(x, modality)


def test_values_in_range_pass():
    check_range(torch.zeros(1, 3, 2, 2), "rgb")  # a black batch is allowed
    check_range(torch.rand(1, 3, 2, 2) * 1.04, "rgb")  # an interpolation's overshoot
    check_range(torch.rand(1, 2, 2, 2) * 2 - 1, "flow")
    check_range(torch.rand(1, 3, 2, 2).half(), "rgb")


def test_only_the_first_batch_is_checked_and_a_refused_one_does_not_count():
    model = seeded().eval()
    for _ in range(2):
        with pytest.raises(NbkitError, match="divide bytes by 255"):
            model.features(torch.rand(1, 3, 32, 32) * 255)
    model.features(torch.rand(1, 3, 32, 32))
    model.features(torch.rand(1, 3, 32, 32) * 255)


def test_shapes_and_channels_that_are_refused():
    with pytest.raises(NbkitError, match="neither 3"):
        modality_of(5)
    with pytest.raises(NbkitError, match="takes "):
        BNInception(3).features(torch.rand(1, 2, 32, 32))
    with pytest.raises(NbkitError, match="clips"):
        BNInception(3)(torch.rand(3, 32, 32))
