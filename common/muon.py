"""Muon: an optimizer that learns in fewer steps than AdamW.

Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024 (kellerjordan.github.io/posts/muon), with
the length of a step as in Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982, section 2.2.
"""

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's, of the Newton-Schulz iteration


class Muon(torch.optim.Optimizer):
    """Takes the place of `torch.optim.AdamW`, at up to ten times its rate.

    As a matrix (outputs, inputs x kernel), a layer's gradient is nearly of low rank: most of it lies in few directions.
    Muon replaces the averaged gradient by roughly the nearest matrix whose singular values are all equal, so that
    other directions are learned, too. Whatever has a second dimension of 1 or none, such as depthwise kernels, biases
    and normalisation, is updated by AdamW.

    torch.optim.Muon takes no kernels of convolutions, and leaves all else to a second optimizer. Unlike Jordan's, ours
    has less momentum (0.95) and fewer iterations (5), for trainings of few steps, and trains the first and the last
    layer, too.

    Args:
        params: parameters or groups of them.
        lr: learning rate, of both kinds.
        weight_decay: decoupled from the gradient, as AdamW has it.
        momentum: of the moving average of gradients, used in Nesterov's form.
        betas: of the averages of AdamW.
        steps: Newton-Schulz iterations; fewer are faster, and leave small singular values smaller.
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
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._muon if p.ndim > 1 and p.shape[1] > 1 else self._adam
                p.add_(update(p, self.state[p], group), alpha=-group["lr"])

    def _muon(self, p: torch.Tensor, state: dict, group: dict) -> torch.Tensor:
        """Return the averaged gradient, orthogonalized; its root mean square is about 0.2, as of AdamW's updates."""
        if not state:
            state["mean"] = torch.zeros_like(p)
        state["mean"].lerp_(p.grad, 1 - group["momentum"])
        matrix = p.grad.lerp(state["mean"], group["momentum"]).flatten(1).float()
        return 0.2 * max(matrix.shape) ** 0.5 * orthogonalized(matrix, group["steps"]).reshape(p.shape)

    def _adam(self, p: torch.Tensor, state: dict, group: dict) -> torch.Tensor:
        if not state:
            state.update(mean=torch.zeros_like(p), square=torch.zeros_like(p), step=0)
        state["step"] += 1
        (beta1, beta2), count = group["betas"], state["step"]
        mean = state["mean"].lerp_(p.grad, 1 - beta1) / (1 - beta1**count)
        square = state["square"].lerp_(p.grad.square(), 1 - beta2) / (1 - beta2**count)
        return mean / (square.sqrt() + 1e-8)


def orthogonalized(matrix: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Return U V^T of the singular value decomposition U S V^T of `matrix` (rows, columns), roughly.

    An odd polynomial of a matrix is the polynomial of its singular values. This one, a x + b x^3 + c x^5, takes those
    between 0 and 1 towards 1: five times, and all above 0.002 of the matrix's norm lie between 0.65 and 1.2; three
    times, those above 0.02 of it. Under autocast its products are bf16, many times as fast and exact enough.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T, steps).T
    x = matrix / (matrix.norm() + 1e-7)  # the norm bounds the largest singular value
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x
