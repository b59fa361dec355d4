"""What --dry-run shows instead of training: data, model, the cost of a step, and a batch as the network gets it."""

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
    """Take one training step, print what it took, draw its batch, and exit; nothing is kept of it.

    Of several processes the first does so.

    FLOPs are those of matrix products and convolutions, two for a multiplication and addition. An allocator needs more
    memory than the tensors.
    """
    if run.rank > 0:
        raise SystemExit
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which no training needs

    from common.reporting import plotting

    print(f"\nclasses of the training set, by their share of the pixels: {shares(train_loader.data)}")
    trained = count_parameters(model, trainable=True)
    print(f"model: {count_parameters(model) / 1e6:.2f} M parameters, {trained / 1e6:.2f} M of them trained")
    for name, child in model.named_children():
        if count := count_parameters(child):
            print(f"  {name:<20}{type(child).__name__:<20}{count / 1e6:>8.2f} M")

    train_loader.set_epoch(1)
    images, masks = next(iter(train_loader))
    kept = {}  # bytes by address: what several operations keep is in memory once

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
    print(f"a step of {len(images)} images of {height}x{width}: loss {loss:.3f}, {seconds:.2f} s as the first one")
    gigaflops = flops.get_total_flops() / len(images) / 1e9
    print(f"  {gigaflops:.2f} GFLOPs an image in the forward pass")
    parts = ", ".join(f"{size / 2**20:.0f} MiB {name}" for name, size in memory.items())
    print(f"  memory: {sum(memory.values()) / 2**20:.0f} MiB of tensors: {parts}")
    print(f"an epoch has {len(train_loader)} steps, {train_loader.num_images} images")
    plotting.plot_batch(images, masks, train_loader.data, run)
    print(f"see {run.plot('batch')}; nothing was trained, as --dry-run asks")
    raise SystemExit


def shares(data: SegmentationSet) -> str:
    """Return the classes of `data` with their shares of the pixels that are not void, the largest first."""
    counts = data.pixel_counts()
    parts = counts / counts.sum().clamp(min=1)
    return ", ".join(f"{data.classes[i]} {parts[i]:.1%}" for i in parts.argsort(descending=True).tolist())
