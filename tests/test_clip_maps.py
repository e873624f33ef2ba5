"""Stored maps of a frozen I3D, and the localizer that is trained above them."""

import numpy as np
import pytest
import torch
from moving_squares import CLASSES, SIDE, config
from seeded_weights import seeded_state
from torch.nn import functional as F

from nbkit.config.localization import Adaptation, Detector, LocalizationConfig
from nbkit.data import clip_maps
from nbkit.data.clip_maps import ClipMaps, build_clip_maps, maps_of_video
from nbkit.data.keyframes import KeyframeDataset
from nbkit.errors import NbkitError
from nbkit.losses.adversarial import action_loss, adversarial_loss
from nbkit.models.i3d import ENDPOINTS, FrozenI3D, InceptionI3D, MaxPoolSame, Unit3D
from nbkit.models.localizer_sizes import build_discriminators, build_localizer, frozen_network
from nbkit.models.mobilenet import fuse
from nbkit.train import localization, localization_data


class RandomI3D(FrozenI3D):
    """The frozen network with seeded weights in float32: no file is read."""

    def __init__(self):
        self.device, self.half, self.key = "cpu", False, "seeded"
        self.network = InceptionI3D()
        self.network.load_state_dict(seeded_state(self.network))
        self.network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return RandomI3D()


def pixels(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("n", [1, 6, 64, 101])
def test_a_video_read_in_pieces_has_the_maps_of_the_whole(network, monkeypatch, n):
    frames = pixels(n)
    monkeypatch.setattr(clip_maps, "PIECE", 4096)
    whole = maps_of_video(frames, network)
    assert whole.dtype == np.float16 and whole.shape == (-(-n // 4), 512, 2, 3)
    monkeypatch.setattr(clip_maps, "PIECE", 32)
    close = {"rtol": 2e-3, "atol": 2e-3 * float(np.abs(whole).max())}
    np.testing.assert_allclose(maps_of_video(frames, network), whole, **close)


def test_a_shorter_context_would_change_the_maps(network, monkeypatch):
    """The context is no longer than it must be: with 16 frames the pieces show."""
    frames = pixels(96)
    whole = maps_of_video(frames, network).astype(np.float32)
    monkeypatch.setattr(clip_maps, "PIECE", 32)
    monkeypatch.setattr(clip_maps, "CONTEXT", 16)
    difference = np.abs(maps_of_video(frames, network) - whole).max()
    assert difference > 0.01 * np.abs(whole).max()


def test_the_maps_of_a_clip_lie_around_its_key_frame(squares_cache, network, tmp_path):
    maps = build_clip_maps(squares_cache, tmp_path, network, progress=False)
    stored = maps.arrays.read("a/0").astype(np.float32)  # (3, 2, 512, 3, 3): ten frames
    assert stored.shape == (3, 2, 512, 3, 3)
    for mirrored in (False, True):
        video = stored[:, int(mirrored)].transpose(1, 0, 2, 3)  # (512, 3, 3, 3)
        np.testing.assert_array_equal(maps.clip("a/0", 8, 8, mirrored), video[:, [1, 2]])
        np.testing.assert_array_equal(maps.clip("a/0", 7, 8, mirrored), video[:, [0, 1]])
        np.testing.assert_array_equal(maps.clip("a/0", 0, 16, mirrored), video[:, [0, 0, 0, 1]])
    turned = maps_of_video(squares_cache.frames("a/0")[:, :, ::-1], network)
    np.testing.assert_array_equal(stored[:, 1], turned.astype(np.float32))


def test_maps_are_stored_once_and_known_by_frames_and_network(squares_cache, network, tmp_path):
    first = build_clip_maps(squares_cache, tmp_path, network, progress=False)

    class Never(RandomI3D):
        def clip_maps(self, x, end):
            raise AssertionError("the maps are there")

    assert build_clip_maps(squares_cache, tmp_path, Never(), progress=False).key == first.key
    other = RandomI3D()
    other.key = "other"
    assert build_clip_maps(squares_cache, tmp_path, other, progress=False).key != first.key


def test_key_frame_boxes_and_maps_are_mirrored_together(
    squares_table, squares_cache, network, tmp_path
):
    maps = build_clip_maps(squares_cache, tmp_path, network, progress=False)
    part = squares_table[squares_table["domain"] == "a"].reset_index(drop=True)
    how = {"clip_len": 8, "key_stride": 2, "augment": True}
    with_maps = KeyframeDataset(squares_cache, part, maps, **how)
    plain = KeyframeDataset(squares_cache, part, **how)
    seen = set()
    for epoch in range(12):
        with_maps.set_epoch(epoch)
        plain.set_epoch(epoch)
        item, expected = with_maps.item(3), plain.item(3)
        video, frame = item["video"], item["frame"]
        assert torch.equal(item["keyframe"], expected["keyframe"])
        assert torch.equal(item["boxes"], expected["boxes"])
        flipped = bool(item["boxes"][0, 0] > SIDE / 2 - 12)  # the squares stand left of the middle
        right = maps.clip(with_maps.videos[video], frame, 8, flipped)
        np.testing.assert_array_equal(item["clip"], right)
        seen.add(flipped)
    assert seen == {False, True}


# --- the detector above them ---------------------------------------------------------------------
@pytest.mark.parametrize("side", [1, 3])
def test_a_convolution_of_one_step_is_the_padded_one(side):
    unit = Unit3D(5, 7, side).double().eval()
    x = torch.rand(2, 5, 1, 6, 4, dtype=torch.float64, requires_grad=True)
    pad = side // 2
    padded = F.conv3d(F.pad(x, [pad] * 6), unit.conv3d.weight)
    torch.testing.assert_close(unit(x), F.relu(unit.bn(padded)))
    weight = unit.conv3d.weight
    ours = torch.autograd.grad(unit(x).square().sum(), [x, weight])
    theirs = torch.autograd.grad(F.relu(unit.bn(padded)).square().sum(), [x, weight])
    torch.testing.assert_close(ours, theirs)


def test_clips_of_one_step_read_the_same_with_the_normalisation_folded_in():
    network = InceptionI3D().eval()
    network.load_state_dict(seeded_state(network))
    clip = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain = network.features(clip)  # one step from MaxPool3d_4a_3x3 on
        fuse(network)
        torch.testing.assert_close(network.features(clip), plain, rtol=1e-3, atol=1e-3)


def test_a_pool_of_one_step_is_the_padded_one():
    x = torch.rand(2, 5, 1, 6, 4, dtype=torch.float64)  # of a ReLU: not negative
    padded = F.max_pool3d(F.pad(x, [1] * 6), 3, 1)
    assert torch.equal(MaxPoolSame((3, 3, 3), (1, 1, 1))(x), padded)


ABOVE = Detector(size="laptop_i3d", temporal_weights="kinetics400")


@pytest.fixture
def seeded_files(monkeypatch):
    """No weight file is read: seeded weights in the temporal branch."""
    from nbkit.models import localizer_parts

    def load(network, name):
        network.load_state_dict(seeded_state(network))

    monkeypatch.setattr(localizer_parts, "load_pretrained", load)


def test_the_detector_above_maps_trains_what_follows_them(seeded_files):
    model = build_localizer(ABOVE, 2, height=160).train()
    frozen = ENDPOINTS[: ENDPOINTS.index("Mixed_4e")]
    names = [name for name, _ in model.temporal.network.named_children()]
    assert not set(names) & set(frozen) and names[0] == "Mixed_4e"
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d))
    generator = torch.Generator().manual_seed(0)
    batch = {
        "keyframe": torch.rand(1, 3, 160, 213, generator=generator),
        "clip": torch.rand(1, 512, 4, 10, 14, generator=generator),
        "boxes": [torch.tensor([[60.0, 30.0, 110.0, 150.0]])],
        "labels": [torch.zeros(1, dtype=torch.int64)],
    }
    losses, seen = model.source_step(batch)
    assert seen.temporal.shape == (1, 528, 10, 14) and seen.instances[0].shape[1] == 1024
    modules = ("t_img", "t_ins", "s_img")
    discriminators = build_discriminators(modules, model, Adaptation())
    adversarial = adversarial_loss(discriminators(seen, model.target_step(batch), 1.0))
    (action_loss(**losses) + adversarial).backward()
    for parameter in (*model.spatial_parameters(), *model.temporal_parameters()):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    # or T_img would have nothing to adapt
    assert model.temporal.network.Mixed_4e.b0.conv3d.weight.grad.abs().sum() > 0
    assert model.eval().detect(batch)[0]["boxes"].shape[1] == 4


def test_tf1_and_tf2_go_on_where_the_stored_layers_end(seeded_files):
    branch = build_localizer(ABOVE, 2, height=64).temporal.eval()
    whole = InceptionI3D().eval()
    whole.load_state_dict(seeded_state(whole))
    clips = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = branch.tf1(whole.features(clips, "Mixed_4d"))
        torch.testing.assert_close(maps, whole.features(clips, "Mixed_4e"))
        torch.testing.assert_close(branch.tf2(maps), whole.tf2(maps))


def test_a_run_above_maps_from_its_videos_to_its_scores(
    seeded_files, network, squares_table, monkeypatch, tmp_path
):
    cfg = config(
        size="laptop_i3d",
        temporal_weights="kinetics400",
        clip_len=8,
        clip_stride=1,
        row="all three",
        data_root=tmp_path,
        runs_dir=tmp_path / "runs",
    )
    parts = [squares_table.assign(split=split) for split in ("train", "test")]
    table = localization_data.pd.concat(parts, ignore_index=True)
    table["video"] = table["split"] + table["video"]
    monkeypatch.setattr(localization_data, "frozen_network", lambda detector, device: network)

    def load(cfg):
        return localization_data.data_of_table(cfg, CLASSES, table)

    monkeypatch.setattr(localization, "load_data", load)
    data = load(cfg)
    assert isinstance(data.target.maps, ClipMaps) and data.test.maps is data.source.maps
    done = localization.run(cfg)
    assert done.metrics["videos"] == 4 and 0 <= done.metrics["frame_map"] <= 100
    monkeypatch.setattr(localization_data, "frozen_network", lambda detector, device: None)
    assert load(cfg).key != data.key  # maps belong to what the training read


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"profile": "demo", "size": "laptop_i3d"}, "give TEMPORAL_WEIGHTS"),
        ({"clip_len": 18}, "CLIP_LEN=18"),
        ({"clip_stride": 2}, "CLIP_STRIDE=2"),
    ],
)
def test_what_does_not_fit_the_maps_is_refused(fields, words):
    with pytest.raises(NbkitError, match=words):
        LocalizationConfig.make(**{"profile": "laptop_i3d", **fields})


def test_only_that_size_reads_maps():
    assert frozen_network(Detector(size="small")) is None
    assert frozen_network(Detector(size="laptop", temporal_weights="imagenet")) is None
    assert frozen_network(ABOVE).key == FrozenI3D(3).key
