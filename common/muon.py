"""Muon: an optimizer that learns in fewer steps than AdamW.

Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024 (kellerjordan.github.io/posts/muon), with
the length of a step as in Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982, section 2.2.
"""

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's: after five steps all singular values lie between 0.7 and 1.2


class Muon(torch.optim.Optimizer):
    """Takes the place of `torch.optim.AdamW`, at up to ten times its learning rate, for networks from random weights.

    A layer's averaged gradient, as a matrix (outputs, inputs x kernel), is dominated by few directions. Muon replaces
    it by the nearest matrix whose singular values are all 1, and so learns the rare directions as fast. What is no
    such matrix, biases, normalisation and depthwise kernels, is left to AdamW.

    Args:
        params: parameters or groups of them.
        lr: learning rate, of both kinds.
        weight_decay: decoupled from the gradient, as AdamW has it.
        momentum: of the averaged gradient, in Nesterov's form.
        betas: of the averages of AdamW.
        steps: iterations of Newton and Schulz towards singular values of 1; fewer are faster and less exact.
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
    def step(self, closure: None = None) -> None:
        """Change all parameters that have a gradient; `closure` is not used."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._muon if p.ndim > 1 and p.shape[1] > 1 else self._adam
                p.add_(update(p, self.state[p], group), alpha=-group["lr"])

    def _muon(self, p: torch.Tensor, state: dict, group: dict) -> torch.Tensor:
        """Return the averaged gradient with singular values of 1, scaled to the mean square of AdamW's, 0.2."""
        mean = state.setdefault("momentum", torch.zeros_like(p))
        mean.lerp_(p.grad, 1 - group["momentum"])
        matrix = p.grad.lerp(mean, group["momentum"]).flatten(1)
        return 0.2 * max(matrix.shape) ** 0.5 * orthogonalized(matrix, group["steps"]).reshape(p.shape)

    def _adam(self, p: torch.Tensor, state: dict, group: dict) -> torch.Tensor:
        mean, square = (state.setdefault(name, torch.zeros_like(p)) for name in ("mean", "square"))
        state["step"] = state.get("step", 0) + 1
        (beta1, beta2), count = group["betas"], state["step"]
        mean.lerp_(p.grad, 1 - beta1)
        square.lerp_(p.grad.square(), 1 - beta2)
        return mean / (1 - beta1**count) / ((square / (1 - beta2**count)).sqrt() + 1e-8)


def orthogonalized(matrix: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Return U V^T of the singular value decomposition U S V^T of `matrix` (rows, columns), roughly.

    An odd polynomial of a matrix is the polynomial of its singular values. This one, a x + b x^3 + c x^5, pulls those
    between 0 and 1 towards 1. All but the last product is of the smaller, square matrix X X^T.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T, steps).T
    x = matrix / (matrix.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    square, eye = x @ x.T, torch.eye(len(x), device=x.device)
    product = factor = eye
    for step in range(steps):
        if step:
            square = factor @ square @ factor
        factor = a * eye + b * square + c * square @ square
        product = factor @ product if step else factor
    return product @ x
