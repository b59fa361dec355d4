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


@pytest.mark.parametrize("columns", [20, 300])
def test_singular_values_from_small_to_large_become_about_one_and_their_directions_stay(columns):
    torch.manual_seed(0)
    given = 7 * matrix(torch.logspace(-1.5, 0, 20), columns)
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    values = left.T @ orthogonalized(given, steps=5) @ right.T
    assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.3)).all()
    assert (values - values.diagonal().diag()).abs().max() < 1e-3
    tall = orthogonalized(given.T, steps=5)
    assert torch.allclose(tall, orthogonalized(given, steps=5).T, atol=1e-5)


def test_a_matrix_of_zeros_stays_one():
    assert not orthogonalized(torch.zeros(3, 5)).any()


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


@pytest.mark.parametrize("shape", [(64, 16, 3, 3), (300, 20)])
def test_a_step_is_as_long_as_one_of_adamw_and_shrinks_the_weights_apart_from_the_gradient(shape):
    torch.manual_seed(0)
    p = nn.Parameter(torch.ones(shape))
    p.grad = torch.randn(shape)
    Muon([p], lr=0.01, weight_decay=1.0).step()
    step = p.detach() - 0.99
    assert 0.15 < step.square().mean().sqrt() / 0.01 < 0.25  # Liu et al.: AdamW's are 0.2 to 0.4
    assert F.cosine_similarity(step.flatten(), p.grad.flatten(), dim=0) < -0.8


def test_it_learns_rare_directions_in_fewer_steps_than_adamw():
    """Least squares whose inputs differ a hundredfold in size, as the directions of real gradients do."""
    losses = {}
    for optimizer in (Muon, torch.optim.AdamW):
        torch.manual_seed(0)
        inputs = torch.randn(256, 16) @ matrix(torch.logspace(-1, 1, 16), 16)
        target = inputs @ torch.randn(16, 4)
        layer = nn.Linear(16, 4, bias=False)
        best = []
        for lr in (0.01, 0.03, 0.1, 0.3):
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
    assert losses[Muon] < losses[torch.optim.AdamW]
