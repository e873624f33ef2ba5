"""Grad-CAM: the reference against the package, where cells lie, masks on the pixels, shares."""

import cv2
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import savemat
from scipy.ndimage import zoom
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.data.boxes import read_actor_masks
from nbkit.data.cache import square
from nbkit.data.clips import ClipDataset
from nbkit.errors import NbkitError
from nbkit.explain import heat, sanity
from nbkit.explain.gradcam import (
    PictureEncoder,
    StreamLogits,
    cell_weights,
    map_layer,
    package_cam,
    placement,
    reference_cam,
    spread,
)
from nbkit.figures import gradcam as drawn
from nbkit.models.bn_inception import BNInception
from nbkit.models.norm import estimating_statistics, use_domain
from nbkit.models.small import FrameFeatureEncoder, SmallEncoder
from nbkit.models.two_stream import TwoStream
from nbkit.train.recognition import prepare

# frames, side (pixels)
NETWORKS = {"small": (8, 40), "i3d": (8, 64), "bn_inception": (2, 64), "mobilenet": (2, 64)}


def network_of(backbone, frames, side, clips=1):
    """A random network whose normalisation has seen the clips, so that maps are not all zero."""
    torch.manual_seed(0)
    cfg = RunConfig.make(
        profile="demo",
        backbone=backbone,
        weights="random",
        clips=clips,
        frames=frames,
        crop=side,
        cache_size=side,
        feature_dim=16,
        bn_mode="shared",
    )
    model = TwoStream(cfg, 5)
    batch = {
        "rgb": torch.rand(2, clips, 3, frames, side, side),
        "flow": torch.rand(2, clips, 2, frames, side, side) - 0.5,
    }
    with torch.no_grad(), estimating_statistics(model, "source"):
        model(batch)
    return model.eval(), batch


def stretched(image):
    """The package's normalisation of one entry: to [0, 1]."""
    image = image - image.min()
    return image / (1e-7 + image.max())


@pytest.mark.parametrize("backbone", NETWORKS)
def test_reference_agrees_with_the_package(backbone):
    frames, side = NETWORKS[backbone]
    model, batch = network_of(backbone, frames, side)
    classes = torch.tensor([3, 1])
    for stream in ("rgb", "flow"):
        network, layer, x = heat.stream_input(model, stream, batch[stream])
        ours = reference_cam(network, layer, x, classes).numpy()
        raw, scaled = package_cam(network, layer, x, classes)
        assert ours.max() > 0 and ours.min() >= 0
        np.testing.assert_allclose(ours, raw, rtol=1e-3, atol=1e-5 * raw.max())
        if model.streams[stream].encoder.sees_pictures:  # one map a frame, resized by OpenCV
            assert ours.ndim == 3 and len(ours) == 2 * frames
            resized = np.stack([cv2.resize(stretched(m), (side, side)) for m in ours])
        else:  # one map a clip, by a cubic spline
            assert ours.ndim == 4 and len(ours) == 2
            size = (frames, side, side)
            resized = np.stack(
                [zoom(stretched(m), [a / b for a, b in zip(size, m.shape)]) for m in ours]
            )
        expected = np.stack([stretched(np.maximum(m, 0)) for m in resized])
        assert scaled.shape == expected.shape == (len(ours), *x.shape[-3 if x.dim() == 5 else -2 :])
        np.testing.assert_allclose(scaled, expected, atol=2e-3)
        assert all(p.grad is None for p in network.parameters())


def test_reference_against_a_slow_loop():
    torch.manual_seed(1)
    layer = nn.Conv3d(2, 4, 3, padding=1)
    read = nn.Linear(4 * 2 * 3 * 3, 3)
    network = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), read).double()
    x = torch.randn(2, 2, 2, 3, 3, dtype=torch.float64)
    ours = reference_cam(network, layer, x, torch.tensor([2, 0]))
    for n, c in enumerate((2, 0)):
        A = layer(x[n : n + 1]).detach()
        total = torch.zeros(2, 3, 3, dtype=torch.float64)
        for k in range(4):
            slope = 0.0
            for place in np.ndindex(2, 3, 3):  # central differences in place of autograd
                up, down = A.clone(), A.clone()
                up[(0, k, *place)] += 1e-5
                down[(0, k, *place)] -= 1e-5
                y = [read(torch.tanh(a).flatten(1))[0, c] for a in (up, down)]
                slope += float((y[0] - y[1]).detach()) / 2e-5
            total += slope / 18 * A[0, k]
        torch.testing.assert_close(ours[n], torch.relu(total), rtol=1e-5, atol=1e-8)


def test_network_of_one_stream_gives_the_logits_of_the_fused_model():
    model, batch = network_of("small", 2, 32, clips=2)
    expected = torch.stack(model.logits(model(batch)["flow"])).mean(0)
    clips = batch["flow"].flatten(0, 1)
    torch.testing.assert_close(StreamLogits(model, "flow", 2)(clips), expected)
    pictures = clips.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(StreamLogits(model, "flow", 2, frames=2)(pictures), expected)


def test_layers_that_have_no_map_are_refused():
    assert map_layer(SmallEncoder("rgb"), -2) is not map_layer(SmallEncoder("rgb"))
    for encoder, layer in (
        (FrameFeatureEncoder(), -1),
        (SmallEncoder("rgb"), 4),
        (BNInception(), 1),
    ):
        with pytest.raises(NbkitError, match="feature map"):
            map_layer(encoder, layer)


@pytest.mark.parametrize("layer", [-1, -2])
def test_placement_is_the_centre_of_what_a_cell_sees(layer):
    """With equal weights and linear units, a cell's gradient is symmetric about its centre."""
    encoder = SmallEncoder("flow", width=1).double().eval()
    for m in encoder.modules():
        if isinstance(m, nn.Conv3d):
            nn.init.ones_(m.weight)
    x = torch.ones(1, 2, 32, 96, 96, dtype=torch.float64, requires_grad=True)
    layers = encoder.layers if layer == -1 else encoder.layers[: layer + 1]
    found = layers(x)
    cell = (found.shape[2] // 2, found.shape[3] // 2, found.shape[4] // 2)
    (grad,) = torch.autograd.grad(found[(0, 0, *cell)], x)
    weight = grad[0].sum(0)
    for axis, (start, step) in enumerate(placement(encoder, layer)):
        others = tuple(a for a in range(3) if a != axis)
        profile = weight.sum(others)
        assert profile[0] == 0 and profile[-1] == 0  # the whole field lies inside
        centre = float((profile * torch.arange(len(profile))).sum() / profile.sum())
        assert centre == pytest.approx(start + step * cell[axis])
    assert placement(BNInception()) is None


def test_spread():
    maps = np.random.default_rng(0).random((2, 3, 5, 4))
    size = (6, 20, 12)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], size, mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(spread(maps, size), expected[:, 0].numpy())
    (rows,) = cell_weights((40,), (3,), ((0.0, 16.0),))
    assert np.allclose(rows.sum(1), 1)
    assert rows[16].tolist() == [0, 1, 0] and rows[39].tolist() == [0, 0, 1]
    assert np.allclose(rows[24], (0, 0.5, 0.5))
    assert spread(np.zeros((1, 2, 2)), (1, 4, 4)).sum() == 0


# --- masks and shares ----------------------------------------------------------------------------
class PaintedCache:
    """A cache of one video whose pictures are its masks, cut as `build_cache` cuts them."""

    size, flow_clip = 24, 4.0

    def __init__(self, masks):
        painted = np.repeat(masks[..., None] * np.uint8(255), 3, -1)
        self.stored, _ = square(painted, self.size)

    def n_frames(self, video):
        return len(self.stored)

    def rgb(self, video):
        return self.stored

    def flow(self, video):
        return np.full((*self.stored.shape[:3], 2), 128, np.uint8)


@pytest.mark.parametrize("augment", [False, True])
def test_masks_take_the_way_of_the_pixels(augment):
    """The actor is a moving rectangle: the mask is what the pixels show, in every crop and flip."""
    masks = np.zeros((12, 48, 72), bool)
    for t in range(12):
        masks[t, 10 + t : 30 + t, 16 + 3 * t : 26 + 3 * t] = True
    table = pd.DataFrame({"video": ["v"], "label": [0], "boxes": [""]})
    how = {"clips": 2, "frames": 4, "crop": 20, "augment": augment}
    dataset = ClipDataset(PaintedCache(masks), table, **how)
    dataset.jitter = 0
    for epoch in range(6 if augment else 1):
        dataset.set_epoch(epoch)
        shown = dataset.batch([0])["rgb"][0, :, 0].numpy()  # (K, T, H, W)
        seen = heat.seen_masks(dataset, 0, masks)
        assert seen.dtype == bool and seen.shape == shown.shape and seen.any() and not seen.all()
        assert np.array_equal(seen, shown >= 127 / 255)
    with pytest.raises(NbkitError, match="no actor masks"):
        heat.seen_masks(dataset, 0)
    with pytest.raises(NbkitError, match="11 masks for 12 frames"):
        heat.seen_masks(dataset, 0, masks[:11])


def test_a_known_rectangle_lands_where_it_must():
    masks = np.zeros((8, 48, 72), bool)
    masks[:, 12:36, 24:48] = True  # centred 24 x 24 of the centred 48 x 48
    table = pd.DataFrame({"video": ["v"], "label": [0], "boxes": [""]})
    dataset = ClipDataset(PaintedCache(masks), table, clips=1, frames=4, crop=20)
    seen = heat.seen_masks(dataset, 0, masks)
    expected = np.zeros((20, 20), bool)
    expected[4:16, 4:16] = True  # half the scale, then 2 pixels off each side
    assert np.array_equal(seen, np.broadcast_to(expected, (1, 4, 20, 20)))
    assert heat.energy_pointing_game(seen.astype(float), seen) == 1
    assert heat.energy_pointing_game((~seen).astype(float), seen) == 0
    assert heat.energy_pointing_game(np.ones(seen.shape), seen) == pytest.approx(seen.mean())
    assert np.isnan(heat.energy_pointing_game(np.zeros(seen.shape), seen))


def test_shares_of_maps():
    masks = np.zeros((2, 1, 2, 8, 8), bool)
    masks[0, ..., :4, :4] = True
    masks[1, ..., 4:, 4:] = True
    maps = np.zeros((2, 1, 1, 2, 2))
    maps[:, ..., 0, 0] = 7.0  # heat in the upper left of both
    right, wrong = heat.heat_shares(maps, masks)
    assert right > 0.5 > 0.1 > wrong
    assert heat.heat_shares(maps * 100, masks)[0] == pytest.approx(right)
    assert np.isnan(heat.heat_shares(0 * maps, masks)).all()
    assert heat.heat_shares(np.ones((2, 1, 1, 2, 2)), masks) == pytest.approx([0.25, 0.25])
    best = heat.ceiling_shares(masks, (1, 2, 2))
    assert (best > 0.25).all() and (best < 1).all()
    fine = heat.ceiling_shares(masks, (2, 8, 8))  # a cell a pixel: the map can be the mask itself
    assert fine == pytest.approx([1, 1])
    other = heat.other_videos(50)
    assert sorted(other) == list(range(50)) and (other != np.arange(50)).all()


def test_boxes_around():
    mask = np.zeros((2, 6, 7), bool)
    mask[0, 1, 2] = mask[0, 4, 5] = True
    box = heat.boxes_around(mask)
    assert box[0, 1:5, 2:6].all() and box.sum() == 16


def test_tables_of_shares():
    before, after = np.array([0.1, 0.2, np.nan, 0.3]), np.array([0.3, 0.4, 0.9, 0.5])
    shares = {"a": {"rgb": before}, "b": {"rgb": after}}
    table = heat.heat_table(shares, {"a": {"rgb": before / 2}, "b": {"rgb": after / 2}})
    assert table["share"].tolist() == pytest.approx([20, 52.5])
    assert table["without heat"].tolist() == [1, 0]
    assert (table["low"] <= table["share"]).all() and (table["share"] <= table["high"]).all()
    gaps = heat.heat_differences(shares, "a")
    assert gaps["difference"].tolist() == pytest.approx([20]) and gaps["videos"].tolist() == [3]
    assert gaps["low"][0] == pytest.approx(20)  # the same gap in every video: no spread


def test_actor_masks_are_read(tmp_path):
    part = np.zeros((4, 5, 3), np.uint8)
    part[1, 2, 0] = 9
    savemat(tmp_path / "puppet_mask.mat", {"part_mask": part})
    masks = read_actor_masks(tmp_path / "puppet_mask.mat")
    assert masks.shape == (3, 4, 5) and masks.sum() == 1 and masks[0, 1, 2]
    with pytest.raises(NbkitError, match="no actor masks"):
        read_actor_masks("", "v7")


# --- a whole method ------------------------------------------------------------------------------
def test_explain_a_method(smoke):
    cfg = smoke(method="source_only")
    _, method, domains = prepare(cfg)
    data = domains.test["target"]
    before = {k: v.clone() for k, v in method.state_dict().items()}
    found = heat.explain(method, data, batch=5)
    assert found.maps["rgb"].shape[:2] == (len(data), cfg.data.clips)
    assert found.maps["flow"].min() >= 0
    assert np.array_equal(found.classes, found.probs["fused"].argmax(1))
    two = np.array([7, 2])
    parts = heat.explain(method, data, two, found.classes[two])
    # batches change nothing
    np.testing.assert_allclose(parts.maps["rgb"], found.maps["rgb"][two], rtol=1e-3, atol=1e-7)
    assert heat.explain(method, data, np.array([3]), data.labels[[3]]).classes == data.labels[3]
    masks = np.stack([heat.seen_masks(data, i) for i in range(4)])
    assert masks.shape == (4, cfg.data.clips, cfg.data.frames, cfg.data.crop, cfg.data.crop)
    assert 0.01 < masks.mean() < 0.4
    some = np.arange(4)
    shuffled = sanity.explain_randomised(method, data, some, found.classes[:4], depth=3)
    same = sanity.explain_randomised(method, data, some, found.classes[:4], depth=0)
    correlations = sanity.rank_correlation(same.maps["rgb"], found.maps["rgb"][:4])
    assert correlations == pytest.approx(np.ones(4))
    assert not np.allclose(shuffled.maps["rgb"], same.maps["rgb"])
    # the method itself is untouched
    assert method.training and method.model.training
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_predictions_are_those_of_the_method_with_attention_too(smoke):
    cfg = smoke(method="ta3n")
    _, method, domains = prepare(cfg)
    data, some = domains.test["target"], np.arange(3)
    found = heat.explain(method, data, some)
    method.eval()
    with torch.no_grad():
        outputs = method.outputs(data.batch(some), method.statistics)
    for name, probs in method.model.probabilities(outputs).items():
        np.testing.assert_allclose(found.probs[name], probs.numpy(), rtol=1e-5)
    attention = method.attention()["rgb"]
    network = StreamLogits(method.model, "rgb", cfg.data.clips, attention=attention)
    with torch.no_grad(), use_domain(method.model, method.statistics):
        logits = network(data.batch(some)["rgb"].flatten(0, 1))
    expected = torch.stack(method.model.logits(outputs["rgb"])).mean(0)
    torch.testing.assert_close(logits, expected)


def test_randomised_draws_only_what_it_says():
    model, _ = network_of("small", 8, 32)
    before = model.state_dict()
    changed = []
    for depth in range(4):
        after = sanity.cascading_randomisation(model, depth).state_dict()
        changed.append({name for name in before if not torch.equal(after[name], before[name])})
    assert not changed[0] and changed[1] < changed[2] < changed[3]
    assert not any(".encoder." in name for name in changed[1])
    assert all(".layers.3." in name for name in changed[2] - changed[1])


def test_rank_correlation():
    a = np.arange(12.0).reshape(2, 6)
    b = np.stack([np.exp(a[0]), -a[1]])
    assert sanity.rank_correlation(a, b) == pytest.approx([1, -1])
    assert np.isnan(sanity.rank_correlation(a, np.zeros((2, 6)))).all()


class Squares(nn.Module):
    """Stands in for the frozen network: its 'features' are pooled pictures."""

    def __init__(self):
        super().__init__()
        self.feature_map = nn.AvgPool2d(4)
        self.gradcam_chain = None


def test_frozen_layers_are_put_back_in_front():
    torch.manual_seed(0)
    head = FrameFeatureEncoder(3, "shared", 4, 6, dropout=0.5).eval()
    encoder = PictureEncoder(Squares(), head).eval()
    clips = torch.rand(2, 3, 5, 8, 8)
    stored = clips.mean((3, 4)).transpose(1, 2)  # (N, T, F), as training reads them
    torch.testing.assert_close(encoder(clips), head(stored))
    network, classes = nn.Sequential(encoder), torch.tensor([1, 4])
    ours = reference_cam(network, encoder.map, clips, classes)
    raw, _ = package_cam(
        nn.Sequential(OneClip(encoder)),
        encoder.map,
        clips[:1].transpose(1, 2).flatten(0, 1),
        classes[:1],
    )
    np.testing.assert_allclose(ours[:5].numpy(), raw, rtol=1e-4, atol=1e-7)


class OneClip(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):  # (T, 3, H, W)
        return self.encoder(x.transpose(0, 1)[None])


# --- figures -------------------------------------------------------------------------------------
def test_figures():
    rng = np.random.default_rng(0)
    assert np.allclose(drawn.overlay(np.full((2, 2), 0.4), np.zeros((2, 2))), 0.4)
    clips = {"rgb": rng.random((3, 3, 4, 10, 10)), "flow": rng.random((3, 2, 4, 10, 10)) - 0.5}
    masks = np.zeros((3, 4, 10, 10), bool)
    masks[..., 2:6, 3:5] = True
    heats = [(m, f"row {i}", rng.random((3, 4, 10, 10))) for m in clips for i in range(2)]
    fig = drawn.video_figure(clips, heats, "a title", masks)
    # two frames per stream, three columns: what was seen, and the heat of both networks
    titles = [ax.get_title() for ax in fig.axes if ax.get_title()]
    assert titles == [
        t for m in ("RGB", "flow") for t in (f"What the {m} stream saw", "row 0", "row 1")
    ]
    assert len(fig.axes) == 2 * 2 * 3 + 1  # and a colour bar
    fig.canvas.draw()
    plt.close("all")
    lines = [
        {
            "row": r,
            "stream": s,
            "share": 20.0,
            "low": 18.0,
            "high": 22.0,
            "other videos": 12.0,
            "without heat": 0,
        }
        for r in ("a", "b")
        for s in ("rgb", "flow")
    ]
    drawn.share_figure(pd.DataFrame(lines), 10.0, {"rgb": 40.0, "flow": 40.0}).canvas.draw()
    drawn.cells_figure(np.zeros((20, 20, 3)), {"last": ((0, 8), (0, 8), 3, 3)}).canvas.draw()
    steps = [
        {"depth": d, "stream": s, "correlation": 1 - i / 3, "share": 20.0}
        for s in ("rgb", "flow")
        for i, d in enumerate(sanity.DEPTHS)
    ]
    drawn.sanity_figure(pd.DataFrame(steps), 10.0).canvas.draw()
    plt.close("all")


def test_examples_follow_their_rule():
    def probs(*true):  # class 0 is true; the rest goes to class 1
        return np.array([[p, 1 - p] for p in true])

    found = drawn.examples(
        probs(0.1, 0.4, 0.2, 0.3, 0.9, 0.8, 0.7),
        probs(0.9, 0.6, 0.4, 0.1, 0.2, 0.4, 0.7),
        np.zeros(7, int),
    )
    assert {k: v.tolist() for k, v in found.items()} == {
        "fixed": [0, 1],
        "not fixed": [3, 2],
        "broken": [4, 5],
    }
    assert drawn.verdict(np.array([0.2, 0.7, 0.1]), 1, ["a", "b_c", "d"]) == "b c (70 %)"
    assert (
        drawn.verdict(np.array([0.2, 0.7, 0.1]), 0, ["a", "b_c", "d"]) == "b c (70 %), not a (20 %)"
    )
