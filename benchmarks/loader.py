"""What does a batch cost, beside the training step that uses it?

Run       python benchmarks/loader.py

Times one batch of the loader (with flips) and one training step of the baseline FCN, in turn, at 224 and batch 16, on a
generated set as large as VOC 2007's training split; prints both medians, their ratio, and the memory the data takes.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from common.augment import random_hflip
from common.cli import cli
from common.datasets import load
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import BasicFCN
from common.run import Run


def main(
    image_size: int = 224,  # pixels
    batch_size: int = 16,  # images per step
    repeats: int = 20,  # steps measured
    run: Run = Run(),
):
    run = run.start(main, locals())
    train_set, _, _ = load("shapes", image_size, run)
    loader = Loader(train_set, batch_size, run, shuffle=True, augment=[random_hflip])
    model = BasicFCN(21).to(run.device, memory_format=torch.channels_last)
    criterion = CrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters())
    wait = torch.cuda.synchronize if run.device.type == "cuda" else lambda: None

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in loader:
        pass
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    loading, training = [], []
    batches = iter(loader)
    for _ in range(repeats + 2):
        wait()
        start = time.perf_counter()
        images, masks = next(batches)
        wait()
        loading.append(time.perf_counter() - start)
        start = time.perf_counter()
        with run.autocast():
            logits = model(images)
        total, weight = criterion(logits.float(), masks)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
        wait()
        training.append(time.perf_counter() - start)
    load_ms, step_ms = (1000 * statistics.median(times[2:]) for times in (loading, training))
    print(f"batch {load_ms:.2f} ms, training step {step_ms:.1f} ms: loading is {load_ms / step_ms:.1%} of a step")
    print(f"memory for {len(train_set)} images: {grown:.0f} MiB")


if __name__ == "__main__":
    cli(main)
