import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.muon import Muon, orthogonalized


def matrix(singular_values: torch.Tensor, columns: int) -> torch.Tensor:
    """Return a random matrix (n, columns) with these n singular values."""
    left, right = (torch.linalg.qr(torch.randn(n, len(singular_values)))[0] for n in (len(singular_values), columns))
    return left * singular_values @ right.T


@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("columns", [20, 300])
@pytest.mark.parametrize(("bf16", "error"), [(False, 1e-3), (True, 0.03)])
def test_singular_values_from_small_to_large_become_about_one_and_their_directions_stay(columns, steps, bf16, error):
    torch.manual_seed(0)
    given = 7 * matrix(torch.logspace(-1.5, 0, 20), columns)
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = orthogonalized(given[None], steps)[0]
    assert found.dtype == (torch.bfloat16 if bf16 else torch.float32)
    values = left.T @ found.float() @ right.T
    assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.3)).all()
    assert (values - values.diagonal().diag()).abs().max() < error
    both = torch.stack([given, 2 * given])
    assert torch.allclose(orthogonalized(both.mT, steps).mT, orthogonalized(both, steps), atol=1e-5)


def test_zeros_stay_zeros():
    assert not orthogonalized(torch.zeros(1, 3, 15)).any()


class Small(nn.Module):
    """A kernel that is a matrix, and three that are none: depthwise, a bias, normalisation."""

    def __init__(self):
        super().__init__()
        self.full, self.depthwise = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images):
        return self.depthwise(self.norm(self.full(images))).square().mean()


def test_what_is_no_matrix_takes_the_steps_of_adamw():
    torch.manual_seed(0)
    ours = Small()
    ours.full.weight.requires_grad_(False)
    theirs = copy.deepcopy(ours)
    optimizers = [
        Muon(ours.parameters(), lr=0.01, weight_decay=0.1, betas=(0.9, 0.99)),
        torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, betas=(0.9, 0.99)),
    ]
    for _ in range(5):
        images = torch.rand(2, 3, 8, 8)
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(images).backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
@pytest.mark.parametrize("shape", [(20, 60), (60, 20)])
def test_a_matrix_takes_the_steps_of_torchs_own(shape):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(5, *shape)
    common = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    ends = []
    for make in (
        lambda p: Muon([p], steps=5, **common),
        lambda p: torch.optim.Muon([p], ns_steps=5, adjust_lr_fn="match_rms_adamw", **common),
    ):
        optimizer = make(p := nn.Parameter(start.clone()))
        for gradient in gradients:
            p.grad = gradient.clone()
            optimizer.step()
        ends.append(p.detach() - start)
    assert (ends[0] - ends[1]).norm() < 0.03 * ends[1].norm()  # torch's is in bf16


def test_kernels_in_16_bits_and_groups_with_rates_of_their_own_take_steps():
    torch.manual_seed(0)
    a, b = (nn.Parameter(torch.ones(64, 16, 3, 3, dtype=torch.bfloat16)) for _ in range(2))
    for p in (a, b):
        p.grad = torch.randn_like(p)
    Muon([{"params": [a]}, {"params": [b], "lr": 0.0}], lr=0.1, weight_decay=0).step()
    assert (b == 1).all()
    assert 0.15 < (a.detach().float() - 1).square().mean().sqrt() / 0.1 < 0.25


def test_it_learns_rare_directions_in_fewer_steps_than_adamw():
    """Least squares whose inputs differ a hundredfold in size by direction, as real gradients do."""
    losses = {}
    for optimizer in (Muon, torch.optim.AdamW):
        torch.manual_seed(0)
        inputs = torch.randn(256, 16) @ matrix(torch.logspace(-1, 1, 16), 16)
        target = inputs @ torch.randn(16, 4)
        layer = nn.Linear(16, 4, bias=False)
        best = []
        for lr in (0.03, 0.1, 0.3, 1.0):
            model = copy.deepcopy(layer)
            steps = optimizer(model.parameters(), lr=lr, weight_decay=0)
            schedule = torch.optim.lr_scheduler.LinearLR(steps, 1.0, 0.0, total_iters=100)
            for _ in range(100):
                steps.zero_grad()
                loss = F.mse_loss(model(inputs), target)
                loss.backward()
                steps.step()
                schedule.step()
            best.append(loss.item())
        losses[optimizer] = min(best)
    assert losses[Muon] < 0.3 * losses[torch.optim.AdamW]
