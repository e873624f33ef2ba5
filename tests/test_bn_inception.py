"""BN-Inception: published names and shapes, golden outputs, input conventions, refused input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from nbkit.errors import NbkitError
from nbkit.models.bn_inception import BLOCKS, BNInception
from nbkit.models.inputs import check_range, modality_of
from nbkit.models.weights import adapt_first_conv

# Every 300th of the 1024 features of two clips, (2, C, 4, 64, 96).  The weights are seeded; under
# such weights our outputs equal those of the public module (benchmarks/backbone_parity.py).
GOLDEN = {
    (3, "eval"): [309.83243, 170.60481, 98.05741, 0.0, 295.91962, 169.59666, 89.28349, 0.0],
    (3, "train"): [0.44687, 0.58389, 0.43401, 0.52071, 0.39919, 0.25323, 0.45338, 0.15473],
    (2, "eval"): [78.20023, 628.98718, 37.0465, 0.0, 81.03326, 649.38635, 42.75447, 0.0],
    (2, "train"): [0.29716, 0.24758, 0.40078, 0.43101, 0.40761, 0.57693, 0.50777, 0.12476],
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def seeded(channels: int = 3) -> BNInception:
    model = BNInception(channels)
    model.load_state_dict(seeded_state(model, 0))
    return model


def clips(channels: int, shape=(4, 64, 96)) -> torch.Tensor:
    x = torch.tensor(np.random.default_rng(1).random((2, channels, *shape)), dtype=torch.float32)
    return x if channels == 3 else 2 * x - 1


@pytest.mark.parametrize(("channels", "mode"), GOLDEN)
def test_golden_outputs(channels, mode):
    model = seeded(channels).train(mode == "train")
    with torch.no_grad():
        found = model(clips(channels))[:, ::300].flatten()
    torch.testing.assert_close(found, torch.tensor(GOLDEN[channels, mode]), rtol=1e-4, atol=1e-4)


def test_names_and_shapes_of_the_published_file():
    model = BNInception(3)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert len(shapes) == 69 * 7  # 69 units: a kernel, its bias, five tensors of normalisation
    assert shapes["conv1_7x7_s2.weight"] == (64, 3, 7, 7)
    assert shapes["conv1_7x7_s2_bn.running_mean"] == (64,)
    assert shapes["inception_3a_1x1.weight"] == (64, 192, 1, 1)
    assert shapes["inception_3a_1x1.bias"] == (64,)
    assert shapes["inception_4e_double_3x3_2.weight"] == (256, 256, 3, 3)
    assert shapes["inception_5b_pool_proj_bn.weight"] == (128,)
    absent = ("inception_3c_1x1", "inception_4e_pool_proj", "last_linear")
    assert not any(name.startswith(absent) for name in shapes)
    head = 1000 * 1024 + 1000  # of the published file, which has 11 295 240 parameters
    assert sum(p.numel() for p in model.parameters()) == 11_295_240 - head


def test_the_table_of_blocks_joins_up():
    names = list(BLOCKS)
    for block, following in zip(names, names[1:], strict=False):
        b = BLOCKS[block]
        joined = b.one + b.three + b.double + (b.pool_proj or b.c_in)
        assert joined == BLOCKS[following].c_in, block


def test_a_clip_is_the_mean_of_its_frames():
    model, x = seeded().eval(), clips(3, (3, 64, 64))
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


def test_sides_that_are_multiples_of_32_work_and_others_are_refused():
    model = seeded().eval()
    for side in (32, 96, 160):
        assert model.features(torch.rand(1, 3, 32, side)).shape == (1, 1024, 1, side // 32)
    for side in (16, 48, 70, 112):
        with pytest.raises(NbkitError, match="multiple of 32"):
            model.features(torch.rand(1, 3, 64, side))


def test_the_last_map_is_what_grad_cam_reads():
    model = seeded().eval()
    kept = []
    (layer,) = model.gradcam_layers
    layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    out = model.features(torch.rand(1, 3, 64, 64))
    assert torch.equal(kept[0], out) and model.sees_pictures and model.gradcam_chain is None


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
    # The same plane in every channel: the response is in_channels / 3 times that of RGB.
    grey = torch.randn(1, 1, 9, 9)
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
