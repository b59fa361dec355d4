"""--dry-run: print classes, model and the cost of one training step, and draw a batch, instead of training."""

import time

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from common.datasets.segmentation_set import SegmentationSet
from common.loader import Loader
from common.models import count_parameters
from common.run import Run


def dry_run(
    model: nn.Module, train_loader: Loader, criterion: nn.Module, optimizer: torch.optim.Optimizer, run: Run
) -> None:
    """Take one training step, print its cost, draw its batch, and exit without saving anything else.

    With several processes, only the first does this. FLOPs count matrix products and convolutions; a multiplication
    and an addition are two. Memory counts tensors only: the allocator needs more.
    """
    if run.rank > 0:
        raise SystemExit
    from torch.utils.flop_counter import FlopCounterMode  # slow: imports Triton, which training does not need

    from common.reporting import plotting

    print(f"\nclasses and their shares of the training pixels: {shares(train_loader.data)}")
    trained = count_parameters(model, trainable=True)
    print(f"model: {count_parameters(model) / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trainable")
    for name, child in model.named_children():
        if count := count_parameters(child):
            print(f"  {name:<20}{type(child).__name__:<20}{count / 1e6:>8.2f} M")

    train_loader.set_epoch(1)
    images, masks = next(iter(train_loader))
    kept = {}  # address -> bytes, because several operations may keep the same tensor

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    model.train()
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    start = time.perf_counter()
    flops = FlopCounterMode(display=False)
    with saved_tensors_hooks(keep, lambda tensor: tensor), flops, run.autocast():
        loss = criterion(model(images).float(), masks)
    loss.backward()
    optimizer.step()
    loss = loss.item()  # waits for the device
    seconds = time.perf_counter() - start
    state = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    memory = {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.grad is not None),
        "optimizer": sum(value.nbytes for value in state),
        "kept for the backward pass": sum(size for address, size in kept.items() if address not in weights),
    }
    height, width = images.shape[-2:]
    print(
        f"one step with {len(images)} images of {height}x{width}: loss {loss:.3f}, {seconds:.2f} s (the first is slow)"
    )
    gigaflops = flops.get_total_flops() / len(images) / 1e9
    print(f"  forward pass: {gigaflops:.2f} GFLOPs per image")
    parts = ", ".join(f"{size / 2**20:.0f} MiB {name}" for name, size in memory.items())
    print(f"  memory for tensors: {sum(memory.values()) / 2**20:.0f} MiB: {parts}")
    print(f"one epoch: {len(train_loader)} steps, {train_loader.num_images} images")
    plotting.plot_batch(images, masks, train_loader.data, run)
    print(f"see {run.plot('batch')}; --dry-run trains nothing")
    raise SystemExit


def shares(data: SegmentationSet) -> str:
    """Return the classes of `data` and their shares of the pixels without void, the largest first."""
    counts = data.pixel_counts()
    parts = counts / counts.sum().clamp(min=1)
    return ", ".join(f"{data.classes[i]} {parts[i]:.1%}" for i in parts.argsort(descending=True).tolist())
