"""Muon: an optimizer that learns in fewer steps than AdamW.

Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024 (kellerjordan.github.io/posts/muon), with
the step length of Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982, section 2.2.
"""

from collections import defaultdict

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's, for the Newton-Schulz iteration


class Muon(torch.optim.Optimizer):
    """Optimizer to use instead of `torch.optim.AdamW`, with up to ten times its learning rate.

    The gradient of a layer, as a matrix (first dimension of the weight, all others), nearly has low rank: most of it
    lies in few directions. Muon replaces the averaged gradient by roughly the nearest matrix with equal singular
    values, so the layer learns other directions too. AdamW updates weights without a second dimension, or with one of
    size 1: depthwise kernels, biases and normalisation. The first dimension is the output channels; for transposed
    convolutions, the input channels.

    torch.optim.Muon does not accept convolution kernels and needs a second optimizer for the other parameters. Jordan's
    has more momentum (0.95) and more iterations (5), and leaves the first and the last layer to AdamW; ours suits short
    trainings.

    Args:
        params: parameters, or groups of them.
        lr: learning rate of Muon and of AdamW.
        weight_decay: decoupled from the gradient, as in AdamW.
        momentum: weight of the old average of gradients; Nesterov's form.
        betas: AdamW's weights of the old averages.
        steps: Newton-Schulz iterations. Fewer make a step faster but leave small singular values smaller.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        momentum: float = 0.8,
        betas: tuple[float, float] = (0.9, 0.99),
        steps: int = 3,
    ):
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "steps": steps}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            if matrices := [p for p in params if p.ndim > 1 and p.shape[1] > 1]:
                self._muon(matrices, group)
            if others := [p for p in params if p.ndim < 2 or p.shape[1] == 1]:
                self._adam(others, group)

    def _muon(self, params: list[torch.Tensor], group: dict) -> None:
        """Step along the averaged gradients, orthogonalized; their root mean square is about 0.2, as with AdamW."""
        for p in params:
            if not self.state[p]:
                self.state[p]["mean"] = torch.zeros_like(p)
        grads, means = [p.grad for p in params], [self.state[p]["mean"] for p in params]
        torch._foreach_lerp_(means, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, means, group["momentum"])
        by_shape = defaultdict(list)  # matrices of one shape are multiplied together: fewer kernels on a GPU
        for p, update in zip(params, updates, strict=True):
            by_shape[p.flatten(1).shape].append((p, update.flatten(1).float()))
        for shape, pairs in by_shape.items():
            matrices = orthogonalized(torch.stack([matrix for _, matrix in pairs]), group["steps"])
            length = 0.2 * max(shape) ** 0.5
            for (p, _), matrix in zip(pairs, matrices, strict=True):
                p.add_(matrix.reshape(p.shape), alpha=-group["lr"] * length)

    def _adam(self, params: list[torch.Tensor], group: dict) -> None:
        for p in params:
            state = self.state[p]
            if not state:
                state.update(mean=torch.zeros_like(p), square=torch.zeros_like(p), step=0)
            state["step"] += 1
        (beta1, beta2), grads = group["betas"], [p.grad for p in params]
        means, squares, counts = ([self.state[p][key] for p in params] for key in ("mean", "square", "step"))
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        deviations = torch._foreach_div(squares, [1 - beta2**count for count in counts])
        torch._foreach_sqrt_(deviations)
        torch._foreach_add_(deviations, 1e-8)
        torch._foreach_addcdiv_(params, means, deviations, [-group["lr"] / (1 - beta1**count) for count in counts])


def orthogonalized(matrices: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Return U V^T for the singular value decomposition U S V^T of each matrix (N, rows, columns), roughly.

    An odd polynomial of a matrix acts on its singular values. This one, a x + b x^3 + c x^5, moves values between 0 and
    1 towards 1. After five steps, all values above 0.002 of the matrix's norm lie between 0.65 and 1.2; after three
    steps, all values above 0.02 of the norm do. Under autocast, most products are bf16, which is exact enough.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT, steps).mT
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)  # the norm bounds the largest singular value
    if x.shape[2] < 4 * x.shape[1]:
        for _ in range(steps):
            x = _polynomial(x @ x.mT) @ x
        return x
    # For a wide matrix, multiplying all polynomials first is twice as fast: they are as small as x x^T.
    with torch.autocast(x.device.type, enabled=False):  # bf16 would lose the small singular values here
        square = x @ x.mT
        product = polynomial = _polynomial(square)
        for _ in range(steps - 1):
            square = polynomial @ polynomial @ square
            polynomial = _polynomial(square)
            product = polynomial @ product
    return product @ x


def _polynomial(square: torch.Tensor) -> torch.Tensor:
    """Return a I + b S + c S^2 for S = `square` (N, n, n); an iteration multiplies x by this, with S = x x^T."""
    a, b, c = COEFFICIENTS
    polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
    polynomial.diagonal(dim1=1, dim2=2).add_(a)
    return polynomial
