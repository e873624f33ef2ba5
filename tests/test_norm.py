"""DomainNorm: whose statistics normalise, which ones change, and the networks it is put into."""

from __future__ import annotations

import torch
from torch import nn

from nbkit.models.norm import (
    DomainNorm,
    convert_batchnorm,
    estimating_statistics,
    keep_statistics,
    use_domain,
)


def layer(mode, channels=4):
    torch.manual_seed(0)
    return nn.Sequential(DomainNorm(channels, mode))


def test_shared_equals_torchs_batchnorm_in_both_modes():
    torch.manual_seed(0)
    ours, theirs = DomainNorm(4, "shared"), nn.BatchNorm2d(4)
    for _ in range(3):
        x = torch.randn(8, 4, 5, 5) * 2 + 1
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(ours.running_mean[0], theirs.running_mean)
    assert torch.allclose(ours.running_var[0], theirs.running_var)
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_per_domain_keeps_the_other_domains_statistics():
    net = layer("per_domain")
    before = net[0].running_mean.clone()
    with use_domain(net, "target"):
        net(torch.randn(16, 4, 3) + 5)
    assert torch.equal(net[0].running_mean[0], before[0])
    assert not torch.equal(net[0].running_mean[1], before[1])
    assert net[0].domain == 0  # back to the source after the block


def test_passes_over_negatives_leave_all_statistics_alone_and_use_batch_statistics():
    for mode in ("shared", "per_domain"):
        net = layer(mode)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        with keep_statistics(net):
            out = net(torch.randn(64, 4, 3) * 9 + 7)
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
        assert out.detach().mean().abs() < 1e-5
        assert abs(float(out.detach().var(unbiased=False)) - 1) < 1e-3


def test_estimated_statistics_are_the_mean_over_batches_and_affect_one_domain():
    net = layer("per_domain").eval()
    batches = [torch.randn(32, 4, 3) + i for i in range(3)]
    with estimating_statistics(net, "target"):
        for x in batches:
            net(x)
    expected = torch.stack([x.mean((0, 2)) for x in batches]).mean(0)
    assert torch.allclose(net[0].running_mean[1], expected, atol=1e-5)
    assert torch.equal(net[0].running_mean[0], torch.zeros(4))
    assert not net.training and net[0].momentum == 0.1
    net.train()(batches[0])  # outside the block the mean is exponential again
    assert torch.allclose(net[0].running_mean[0], 0.1 * batches[0].mean((0, 2)), atol=1e-5)


def test_blocks_are_left_even_when_the_pass_inside_fails():
    net = layer("per_domain").eval()
    for block in (use_domain(net, "target"), estimating_statistics(net, "target")):
        try:
            with block:
                net(torch.randn(2, 5, 3))  # five channels instead of four
        except (RuntimeError, ValueError):
            pass
        assert net[0].domain == 0 and net[0].averaged is None and not net.training


def test_group_and_frozen_never_change():
    for mode in ("group", "frozen"):
        net = layer(mode)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        with estimating_statistics(net, "target"):
            net(torch.randn(8, 4, 3) + 3)
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_group_mode_is_torchs_group_norm_for_channels_that_8_does_not_divide():
    x = torch.randn(5, 6, 4)
    assert torch.allclose(DomainNorm(6, "group")(x), torch.nn.functional.group_norm(x, 6))


def test_converted_network_gives_the_same_outputs_and_obeys_keep_statistics():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)),
    )
    net(torch.randn(8, 3, 9, 9))
    net.eval()
    x = torch.randn(2, 3, 9, 9)
    expected = net(x)
    converted = convert_batchnorm(net, "per_domain")
    for domain in ("source", "target"):
        with use_domain(converted, domain):
            assert torch.allclose(converted(x), expected, atol=1e-6)
    converted.train()
    before = {k: v.clone() for k, v in converted.state_dict().items()}
    with keep_statistics(converted):
        converted(x)
    assert all(torch.equal(v, before[k]) for k, v in converted.state_dict().items())
