"""One confusion matrix of a whole split, and every score that follows from it.

The headline is mIoU: IoU_c = N_cc / (row_c + column_c - N_cc) of the split's matrix N, averaged over the classes that
occur in the split's target. Void pixels are not counted. Papers and courses use the other scores.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from common.system.distributed import all_gather

MIOU, PIXEL_ACCURACY = "mIoU", "pixel accuracy"
INTERVAL_BELOW = 200  # images; a score on fewer is shown with its interval


class ConfusionMatrix:
    """Counts of pixels by target and predicted class: int64, on the device, exact under any batching.

    `counts` is (num_classes + 1, num_classes). counts[t, p] is the number of pixels of class t predicted as p; the last
    row counts void pixels. `images` is (N, 3, num_classes), for the scores that average over images. It holds the
    number of hit, target and predicted pixels of each image and class, without void pixels.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(num_classes + 1, num_classes, dtype=torch.int64, device=device)
        self._images: list[torch.Tensor] = []

    @property
    def images(self) -> torch.Tensor:
        """(N, 3, num_classes) int64, as described above."""
        return torch.cat([self.counts.new_zeros(0, 3, self.counts.shape[1]), *self._images])

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch: `prediction` (B, H, W) in 0..num_classes-1, `target` (B, H, W) likewise or VOID; integers.

        torch.bincount would wait for the GPU, because it needs the largest value; scatter_add_ does not.
        """
        rows, columns = self.counts.shape
        cells = rows * columns
        index = target.clamp(max=columns) * columns + prediction  # the pixel's cell in the matrix; VOID is the last row
        index += cells * torch.arange(len(target), device=index.device)[:, None, None]  # each image has its own matrix
        one = torch.ones(1, dtype=torch.int64, device=index.device)
        counts = torch.zeros(len(target) * cells, dtype=torch.int64, device=index.device)
        counts = counts.scatter_add_(0, index.flatten(), one.expand(index.numel())).view(-1, rows, columns)
        valid = counts[:, :-1]
        self.counts += counts.sum(0)
        self._images.append(torch.stack([valid.diagonal(dim1=1, dim2=2), valid.sum(2), valid.sum(1)], dim=1))

    @classmethod
    def of_image(cls, prediction: np.ndarray, target: np.ndarray, num_classes: int) -> "ConfusionMatrix":
        """Return the matrix of one image, given as (H, W) uint8."""
        matrix = cls(num_classes)
        matrix.update(torch.from_numpy(prediction)[None], torch.from_numpy(target)[None].long())
        return matrix

    def gathered(self) -> "ConfusionMatrix":
        """Return the matrix of all processes together, on the CPU."""
        total = ConfusionMatrix(self.counts.shape[1])
        for counts, images in all_gather((self.counts.cpu(), self.images.cpu())):
            total.counts += counts
            total._images.append(images)
        return total

    def add(self, other: "ConfusionMatrix") -> None:
        """Add the counts of another matrix."""
        self.counts += other.counts
        self._images += other._images

    def most_frequent(self) -> int:
        """Return the class of most pixels in the target."""
        return int(self.counts[:-1].sum(1).argmax())

    def floor(self) -> "ConfusionMatrix":
        """Return the majority-class baseline: the matrix if the most frequent class is predicted everywhere."""
        floor, most = ConfusionMatrix(self.counts.shape[1], self.counts.device), self.most_frequent()
        floor.counts[:, most] = self.counts.sum(1)
        target = self.images[:, 1]
        hit, predicted = torch.zeros_like(target), torch.zeros_like(target)
        hit[:, most], predicted[:, most] = target[:, most], target.sum(1)
        floor._images = [torch.stack([hit, target, predicted], dim=1)]
        return floor

    def iou(self) -> torch.Tensor:
        """Return the IoU of each class, (num_classes,) float64; NaN for a class neither in target nor prediction."""
        return _iou(self.counts[:-1])

    def class_scores(self) -> dict[str, torch.Tensor]:
        """Return the scores of the classes by name, each (num_classes,); NaN where the denominator is 0.

        TP, FP and FN count the true positive, false positive and false negative pixels of a class. IoU is TP / (TP +
        FP + FN), precision TP / (TP + FP), recall TP / (TP + FN), Dice (F1) 2 TP / (2 TP + FP + FN). The last two
        entries are the share of the target's pixels and the number of images that have the class.
        """
        counts = self.counts[:-1].double()
        hit, target, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        return {
            "IoU": self.iou(),
            "precision": hit / predicted,
            "recall": hit / target,
            "Dice": 2 * hit / (target + predicted),
            "share of pixels": target / target.sum(),
            "images": (self.images[:, 1] > 0).sum(0),
        }

    def present(self) -> torch.Tensor:
        """Return which classes occur in the target, (num_classes,) bool. mIoU averages these."""
        return self.counts[:-1].sum(1) > 0

    def mean_iou(self) -> float:
        """Return mIoU, the headline; NaN if every pixel is void."""
        return self.iou()[self.present()].mean().item()

    def interval(self, draws: int = 1000) -> tuple[float, float]:
        """Return the ends of the 95 % interval of mIoU: how much other images of the same kind would change it.

        Percentile bootstrap: N images are drawn with replacement, again and again, and scored. Efron & Tibshirani, An
        Introduction to the Bootstrap, 1993, chapter 13.
        """
        count = len(self.images)
        drawn = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(0))
        # How often each draw takes each image (draws, N); times the images' pixels, this sums the images of a draw.
        times = torch.stack([row.bincount(minlength=count) for row in drawn]).double()
        hit, target, predicted = (times @ pixels for pixels in self.images.cpu().double().unbind(1))
        # A class that a draw lacks has its IoU over all images: draws without hard ones would look better.
        iou = torch.where(target > 0, hit / (target + predicted - hit), self.iou().cpu())[:, self.present().cpu()]
        return tuple(iou.mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist())

    def pixel_accuracy(self) -> float:
        """Return the share of non-void pixels that are right; NaN if no pixel is counted."""
        return _accuracy(self.counts[:-1])

    def image_iou(self) -> torch.Tensor:
        """Return the IoU (N, num_classes) float64 of each class in each image; NaN where the union is empty."""
        hit, target, predicted = self.images.double().unbind(1)
        return hit / (target + predicted - hit)

    def image_scores(self) -> torch.Tensor:
        """Return the mean IoU (N,) float64 over the classes in each image's target; NaN if all of it is void."""
        return torch.where(self.images[:, 1] > 0, self.image_iou(), torch.nan).nanmean(1)

    def scores(self, background: int | None = 0) -> dict[str, float]:
        """Return every score by name, the headline first.

        Args:
            background: two scores count void pixels as this class; None leaves them out.
        """
        hit, target, _ = self.images.double().unbind(1)
        scores = {
            MIOU: self.mean_iou(),
            "mIoU over classes in target or prediction": self.iou().nanmean().item(),
            "per-image mIoU, absent class = 0": _mean(self.image_iou().nan_to_num(0)),
            "per-image mIoU over classes present": _mean(self.image_scores()),
            "per-image class accuracy over classes present": _mean((hit / target).nanmean(1)),
            "per-image pixel accuracy": _mean(hit.sum(1) / target.sum(1)),
            PIXEL_ACCURACY: self.pixel_accuracy(),
        }
        if background is not None:
            with_void = self.counts[:-1].clone()
            with_void[background] += self.counts[-1]
            scores["mIoU, void as background"] = _iou(with_void)[with_void.sum(1) > 0].mean().item()
            scores["pixel accuracy, void as background"] = _accuracy(with_void)
        return scores

    def report(self, classes: Sequence[str]) -> dict:
        """Return all scores, the scores of the baseline ("floor"), the IoU per class, and the matrix without void.

        IoU is None for a class in neither target nor prediction; row t, column p of the matrix counts the pixels of
        target class t predicted as p.
        """
        background = list(classes).index("background") if "background" in classes else None
        iou = [None if math.isnan(value) else value for value in self.iou().tolist()]
        result = {"scores": self.scores(background), "floor": self.floor().scores(background)}
        result |= {"classes_in_target": int(self.present().sum()), "iou": dict(zip(classes, iou, strict=True))}
        result["confusion"] = self.counts[:-1].tolist()
        return result | ({"interval": [*self.interval()]} if len(self.images) < INTERVAL_BELOW else {})


class WeightedMean:
    """The mean of the losses of batches, weighted by their pixels; exact under any batching.

    The sums stay on the device until `compute`, so no batch waits for them.
    """

    def __init__(self):
        self._pairs: list[torch.Tensor] = []

    def update(self, value: torch.Tensor, weight: torch.Tensor) -> None:
        """Add the mean of a batch and the weight of its pixels, both 0-d float."""
        self._pairs.append(torch.stack([value.detach() * weight, weight]))

    def first_not_finite(self) -> int | None:
        """Return the number of the first batch, from 0, with a mean that is NaN or infinite; None if there is none."""
        bad = ~torch.stack(self._pairs)[:, 0].isfinite()
        return int(bad.int().argmax()) if bad.any() else None

    def compute(self) -> float:
        """Return the mean over the batches of all processes; 0 if all weights are 0."""
        local = torch.stack(self._pairs).cpu().double().sum(0)  # in float64, which not every device has
        total, weight = sum(all_gather(local)).tolist()
        return total / weight if weight else 0.0


def _iou(counts: torch.Tensor) -> torch.Tensor:
    """Return the IoU (C,) float64 of a (C, C) matrix; NaN where the union is empty."""
    hit = counts.diagonal().double()
    return hit / (counts.sum(0) + counts.sum(1) - hit)


def _accuracy(counts: torch.Tensor) -> float:
    """Return the share of the pixels in a (C, C) matrix that are right, in float64; NaN if no pixel is counted."""
    return (counts.trace().double() / counts.sum().double()).item()


def _mean(values: torch.Tensor) -> float:
    """Return the mean over all but NaN, summed in sorted order so that the order of the images does not matter."""
    values = values[~values.isnan()].sort().values
    return (values.sum() / len(values)).item()
