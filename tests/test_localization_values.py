"""What the localizer does with its numbers: reversal, whose statistics, diagnostics, tubes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from moving_squares import config

from nbkit.config.localization import ROWS
from nbkit.evaluate.detections import Detections, Tube
from nbkit.evaluate.video_map import RANGE
from nbkit.losses.adversarial import adversarial_loss
from nbkit.train.localization import LocalizationModel, branch_optimizer, reversal, train_step
from nbkit.train.localization_eval import link_settings, target_statistics, where_from


@pytest.mark.parametrize("row", ["T_img", "T_ins", "S_img"])
def test_the_features_of_a_training_step_climb_the_domain_loss(squares, row):
    """A step along the features' slope makes the domains harder to tell.

    With the coefficient that training uses.
    """
    cfg = config(row=row, beta=0.5)
    model = LocalizationModel(cfg, 2)
    source, target = squares("a"), squares("b", withhold_labels=True)
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, first, second, beta):
            seen.append((first, second, beta))
            return model(first, second, beta)

    fabric = SimpleNamespace(to_device=lambda batch: batch, backward=lambda loss: None)
    optimizer = branch_optimizer(cfg, model)
    optimizer.step = lambda: None
    train_step(fabric, Watched(), optimizer, cfg, source, target, 0)
    first, second, beta = seen[0]
    assert beta == reversal(cfg, 0) == 0.5
    if row == "S_img":
        features = model.detector.spatial_parameters()
    else:
        features = model.detector.temporal_parameters()

    def domain_loss():
        torch.manual_seed(0)  # the same proposals
        return adversarial_loss(model(first, second, beta)[1])

    before = domain_loss()
    slopes = torch.autograd.grad(before, features, allow_unused=True)
    size = torch.sqrt(sum(g.square().sum() for g in slopes if g is not None))
    with torch.no_grad():
        for p, g in zip(features, slopes):
            if g is not None:
                p -= 1e-3 / size * g  # as the optimizer does
        assert domain_loss() > before


def test_whose_statistics_read_the_target():
    assert {row: target_statistics(row) for row in ROWS} == {
        "I3D+RPN": "source",
        "oracle": "source",
        "AdaBN": "target",
        "T_img": "target",
        "T_ins": "target",
        "S_img": "target",
        "T_img + T_ins": "target",
        "T_img + S_img": "target",
        "T_ins + S_img": "target",
        "all three": "target",
    }


def test_diagnostics_of_a_hand_made_case():
    box = [0.0, 0, 10, 10]
    truth = [Tube(0, 1, np.arange(3), np.tile([box], (3, 1)))]
    # frame 0: the better-scored of two that cover it is right; frame 1: wrong; frame 2: none covers
    # it
    found = Detections(
        np.zeros(5, int),
        np.array([0, 0, 1, 1, 2]),
        np.array([1, 0, 0, 1, 1]),
        np.array([0.9, 0.2, 0.8, 0.3, 0.9]),
        np.array([[0.0, 0, 10, 8], [0, 0, 10, 6], [0, 0, 10, 9], box, [0, 0, 10, 3]]),
    )
    proposals = {
        (0, 0): np.array([[0.0, 0, 10, 3]]),
        (0, 1): np.array([[50.0, 50, 60, 60], [0, 0, 10, 5]]),
    }
    assert where_from(found, proposals, truth) == {
        "proposal_recall": pytest.approx(100 / 3),
        "class_given_box": 50.0,
        "box_iou": pytest.approx(100 * (0.8 + 1.0) / 2),
    }


def test_a_runs_settings_reach_its_tubes():
    made = link_settings(config(max_gap=2, min_tube_len=3, tube_score_min=0.4))
    assert (made.max_gap, made.min_length, made.min_score) == (2, 3, 0.4)
    assert RANGE == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
