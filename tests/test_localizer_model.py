"""The localizer's parts: shapes, gradients between branches, discriminators, bad input."""

import pytest
import torch

from nbkit.config.localization import Adaptation, Detector
from nbkit.losses.adversarial import action_loss, adversarial_loss
from nbkit.models import roi as roi_module
from nbkit.models.discriminators import (
    Aspects,
    Discriminators,
    DiscriminatorShape,
    SpatialImageDiscriminator,
    TemporalImageDiscriminator,
    TemporalInstanceDiscriminator,
)
from nbkit.models.localizer import LocalizerSettings
from nbkit.models.localizer_parts import I3DTemporal, MobileNetTemporal, SmallTemporal
from nbkit.models.localizer_sizes import build_discriminators, build_localizer
from nbkit.models.roi import DetectSettings, RoiSampler, final_detections, jittered, roi_losses

ALL = ("t_img", "t_ins", "s_img")


def make_batch(n=2, size=(80, 80), frames=4, boxes=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    h, w = size
    boxes = [torch.tensor([[20.0, 10.0, 50.0, 70.0]])] * n if boxes is None else boxes
    return {
        "keyframe": torch.rand(n, 3, h, w, generator=g),
        "clip": torch.rand(n, 3, frames, h, w, generator=g),
        "boxes": boxes,
        "labels": [torch.zeros(len(b), dtype=torch.int64) for b in boxes],
    }


@pytest.fixture(scope="module")
def small():
    return build_localizer(Detector(size="small"), 3, height=80).train()


def test_small_shapes_and_size(small):
    losses, seen = small.source_step(make_batch())
    assert set(losses) == {"rpn_cls", "rpn_reg", "roi_cls", "roi_reg"}
    assert seen.spatial.shape == (2, 64, 20, 20) and seen.temporal.shape == (2, 64, 20, 20)
    assert [x.shape for x in seen.instances] == [(8, 64)] * 2
    assert sum(p.numel() for p in small.parameters()) < 320_000
    d = build_discriminators(ALL, small, Adaptation())
    assert sum(p.numel() for p in d.parameters()) < 120_000


def test_the_small_temporal_branch_sees_motion_and_starts_with_a_classifier_that_can_learn():
    branch = SmallTemporal()
    still = torch.rand(1, 3, 1, 32, 32).expand(-1, -1, 4, -1, -1)
    moved = torch.stack([torch.roll(still[:, :, 0], t, dims=-1) for t in range(4)], dim=2)
    assert branch.tf1(still).shape == (1, 64, 2, 8, 8)
    seen = []
    hook = branch.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    branch.tf1(still), branch.tf1(moved)
    hook.remove()
    assert (seen[0][:, 3:] == 0).all()
    torch.testing.assert_close(seen[1][:, 3:, 1:], 4 * (moved[:, :, 1:] - moved[:, :, :-1]))
    spread = {
        size: float(build_localizer(Detector(size=size), 3).classify.weight.detach().std())
        for size in ("small", "laptop")
    }
    assert min(spread.values()) > 0.03  # 0.01 left the class at chance after a hundred steps
    s = LocalizerSettings()
    assert s.classifier_std == 0.01  # the paper size starts from trained weights


def test_box_loss_bends_at_one():
    """Fast R-CNN, Eq. (3): half the square up to 1, then a line of slope one."""
    box, wanted = torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([[10.0, 10, 30, 30]])
    sample = roi_module.RoiSample(box, torch.tensor([1]), wanted)
    for delta, expected in ((0.5, 0.125), (3.0, 2.5)):
        _, loss = roi_losses(torch.zeros(1, 3), torch.tensor([[delta, 0.0, 0.0, 0.0]]), [sample])
        assert loss.item() == pytest.approx(expected)


def test_losses_stay_in_their_branch(small):
    """RPN losses touch the key-frame branch only, RoI losses the temporal branch only."""
    losses, _ = small.source_step(make_batch())
    spatial, temporal = small.spatial_parameters(), small.temporal_parameters()
    assert len(spatial) + len(temporal) == len(list(small.parameters()))
    rpn = torch.autograd.grad(
        losses["rpn_cls"] + losses["rpn_reg"],
        spatial + temporal,
        allow_unused=True,
        retain_graph=True,
    )
    roi = torch.autograd.grad(
        losses["roi_cls"] + losses["roi_reg"], spatial + temporal, allow_unused=True
    )
    n = len(spatial)
    assert all(g is not None for g in rpn[:n]) and all(g is None for g in rpn[n:])
    assert all(g is None for g in roi[:n]) and all(g is not None for g in roi[n:])


@pytest.mark.parametrize("adapt", [("t_img",), ("t_ins",), ("s_img",), ("t_img", "s_img"), ALL])
def test_reversal_turns_each_modules_gradient_and_reaches_only_its_branch(small, adapt):
    small.eval()
    d = build_discriminators(adapt, small, Adaptation())

    def gradient(beta):
        torch.manual_seed(0)
        terms = d(
            small.target_step(make_batch(seed=1)), small.target_step(make_batch(seed=2)), beta
        )
        assert set(terms) == set(adapt)
        params = [small.keyframe.layers[0][0].weight, small.temporal.first[0][0].weight]
        return torch.autograd.grad(adversarial_loss(terms), params, allow_unused=True)

    plain, turned = gradient(-1.0), gradient(0.5)  # beta = -1: no reversal
    for reached, a, b in zip(
        ("s_img" in adapt, bool({"t_img", "t_ins"} & set(adapt))), plain, turned
    ):
        if reached:
            torch.testing.assert_close(b, -0.5 * a)
            assert a.abs().max() > 0
        else:
            assert a is None and b is None
    small.train()


def test_initial_weights_do_not_depend_on_the_modules():
    a, b = (
        build_localizer(Detector(size="small"), 3, height=80, seed=3),
        build_localizer(Detector(size="small"), 3, height=80, seed=3),
    )
    build_discriminators(ALL, a, Adaptation(), seed=3)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    state = torch.random.get_rng_state()
    build_localizer(Detector(size="small"), 3, height=80, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())


def test_target_step_never_reads_labels(small):
    small.eval()
    d = build_discriminators(ALL, small, Adaptation())
    clean, poisoned = make_batch(), make_batch(boxes=[torch.full((1, 4), float("nan"))] * 2)
    for a, b in zip(
        d.logits(small.target_step(clean))["t_ins"], d.logits(small.target_step(poisoned))["t_ins"]
    ):
        assert torch.equal(a, b)
    bare = {k: clean[k] for k in ("keyframe", "clip")}
    assert len(small.target_step(bare).instances) == 2
    small.train()


def test_target_proposals_are_the_rpns_and_limited(small):
    batch = make_batch()
    spatial = small.keyframe(batch["keyframe"])
    boxes = small.propose(batch["keyframe"], spatial, 5)
    assert [len(b) for b in boxes] == [5, 5] and small.rpn.training and not boxes[0].requires_grad


def test_detections_are_inside_ranked_and_limited(small):
    small.eval()
    found = small.detect(make_batch())
    small.train()
    for f in found:
        assert (f["boxes"] >= 0).all() and (f["boxes"] <= 80).all()
        assert (f["scores"].diff() <= 0).all() and len(f["scores"]) == len(f["labels"])
        assert (
            0 < len(f["labels"]) and f["labels"].max() <= 2 and f["labels"].bincount().max() <= 10
        )
        assert f["proposals"].shape[1] == 4


def test_background_frame_gives_background_only(small):
    empty = [torch.zeros(0, 4), torch.tensor([[20.0, 10.0, 50.0, 70.0]])]
    losses, seen = small.source_step(make_batch(boxes=empty))
    assert all(torch.isfinite(v) for v in losses.values())
    both = [torch.zeros(0, 4)] * 2
    losses, _ = small.source_step(make_batch(boxes=both))
    assert losses["roi_reg"] == 0 and losses["rpn_reg"] == 0
    action_loss(**losses).backward()


# --- RoI pieces ----------------------------------------------------------------------------------
def test_roi_sampler_labels_and_fraction():
    truth, labels = torch.tensor([[10.0, 10, 30, 50]]), torch.tensor([2])
    boxes = torch.cat(
        [
            truth.repeat(6, 1) + torch.arange(6)[:, None] * 0.5,
            torch.tensor([[50.0, 50, 70, 70]]).repeat(20, 1),
        ]
    )
    sample = RoiSampler(8, 0.5)(boxes, truth, labels)
    assert sorted(sample.labels.tolist()) == [0] * 4 + [3] * 4
    assert (RoiSampler(8, 0.5)(boxes, truth[:0], labels[:0]).labels == 0).all()


def test_roi_losses_closed_form():
    truth = torch.tensor([[10.0, 10, 30, 50]])
    sample = RoiSampler(4, 0.5)(truth, truth, torch.tensor([0]))
    cls, box = roi_losses(torch.zeros(1, 4), torch.zeros(1, 4), [sample])
    assert cls.item() == pytest.approx(torch.log(torch.tensor(4.0)).item()) and box == 0
    nothing = RoiSampler(4, 0.5)(truth[:0], truth, torch.tensor([0]))
    cls, box = roi_losses(torch.zeros(0, 4), torch.zeros(0, 4), [nothing])
    assert cls == 0 and box == 0


def test_jitter_stays_in_the_frame():
    boxes = jittered(torch.tensor([[0.0, 0, 20, 40], [70, 60, 80, 80]]), 50, 0.3, (80, 80))
    assert (boxes >= 0).all() and (boxes <= 80).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(jittered(torch.zeros(0, 4), 5, 0.3, (80, 80))) == 0


def test_no_detection_at_all():
    found = final_detections(
        torch.zeros(0, 4), torch.zeros(0, 4), [torch.zeros(0, 4)] * 2, (80, 80), DetectSettings()
    )
    assert [len(f["scores"]) for f in found] == [0, 0]
    sure_of_background = torch.tensor([[50.0, 0, 0, 0]])
    (found,) = final_detections(
        sure_of_background,
        torch.zeros(1, 4),
        [torch.tensor([[5.0, 5, 20, 20]])],
        (80, 80),
        DetectSettings(),
    )
    assert len(found["scores"]) == 0


def test_final_detections_suppress_per_class_and_keep_the_best():
    boxes = torch.tensor([[10.0, 10, 30, 50], [11, 10, 31, 50], [50, 10, 70, 50]])
    logits = torch.tensor([[0.0, 3, 2.9], [0, 4, -9], [0, 1, -9]])
    (found,) = final_detections(
        logits, torch.zeros(3, 4), [boxes], (80, 80), DetectSettings(score=0.05, per_class=1)
    )
    assert found["labels"].tolist() == [0, 1]
    torch.testing.assert_close(found["boxes"], boxes[[1, 0]])


# --- discriminators ------------------------------------------------------------------------------
def test_discriminator_shapes():
    shape = DiscriminatorShape((16, 16, 16), 16, 16)
    maps, vectors = torch.rand(3, 64, 15, 20), torch.rand(5, 64)
    for norm in ("gn", "bn"):
        assert SpatialImageDiscriminator(64, shape, norm)(maps).shape == (3,)
    assert TemporalImageDiscriminator(64, shape)(maps).shape == (3, 1, 15, 20)
    assert TemporalInstanceDiscriminator(64, shape)(vectors).shape == (5,)


def test_frames_without_proposals_do_not_break_the_instance_term():
    d = Discriminators(("t_ins",), (4, 4, 8), DiscriminatorShape(t_ins=8), Adaptation())

    def seen(counts):
        return Aspects(
            torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3), [torch.rand(n, 8) for n in counts]
        )

    assert torch.isfinite(d(seen([3, 0]), seen([0, 0]))["t_ins"])


# --- the other sizes -----------------------------------------------------------------------------
@pytest.mark.parametrize("pool", ["before_roi", "after_tf2"])
def test_temporal_pool(pool):
    model = build_localizer(Detector(size="small", temporal_pool=pool), 3, height=80)
    losses, seen = model.source_step(make_batch())
    assert seen.temporal.shape == (2, 64, 20, 20) and torch.isfinite(losses["roi_cls"])


def test_pooling_before_or_after_is_the_same_for_a_still_clip():
    branch = SmallTemporal().eval()
    rois = torch.rand(3, 64, 1, 7, 7)
    torch.testing.assert_close(branch.tf2(rois.expand(-1, -1, 4, -1, -1)), branch.tf2(rois))


def test_laptop_temporal_branch_starts_from_image_features():
    branch = MobileNetTemporal().eval()
    assert branch.tf2(torch.rand(2, 96, 1, 7, 7)).shape == (2, 320)
    assert not any(p.requires_grad for p in branch.first[: branch.frozen].parameters())
    clip = torch.rand(1, 3, 1, 32, 48).expand(-1, -1, 3, -1, -1)
    maps = branch.tf1(clip)
    assert maps.shape == (1, 96, 3, 2, 3)
    torch.testing.assert_close(maps[:, :, 0], maps[:, :, 2])


def test_paper_size_forward_backward_and_detection_at_the_papers_resolution():
    """240 x 320, 16 frames, ResNet-50 and I3D: map 528 x 15 x 20, RoI 7 x 7, vector 1024."""
    few = {"post_nms": (8, 3), "pre_nms": (100, 100), "target_proposals": 2, "roi_batch": 4}
    model = build_localizer(Detector(size="paper"), 4, **few).train()
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d))
    batch = make_batch(1, (240, 320), 16, [torch.tensor([[100.0, 60.0, 180.0, 220.0]])])
    losses, seen = model.source_step(batch)
    assert seen.spatial.shape == (1, 1024, 15, 20) and seen.temporal.shape == (1, 528, 15, 20)
    assert seen.instances[0].shape == (4, 1024)
    d = build_discriminators(ALL, model, Adaptation())
    (action_loss(**losses) + 0.1 * adversarial_loss(d(seen, seen, 1.0))).backward()
    for p in (*model.spatial_parameters(), *model.temporal_parameters()):
        assert p.grad is not None and torch.isfinite(p.grad).all()
    model.eval()
    assert model.detect(batch)[0]["boxes"].shape[1] == 4
    assert I3DTemporal(end="Mixed_4f").channels == 832
