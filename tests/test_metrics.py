import numpy as np
import pytest
import torch

from common.datasets import VOID
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix


def random_case(seed: int, classes: int = 5, images: int = 6, present: tuple = (), side: int = 13):
    """Return prediction and target (images, side, side); targets only from `present` where that is given."""
    rng = np.random.default_rng(seed)
    target = rng.choice(list(present) or range(classes), size=(images, side, side)).astype(np.int64)
    prediction = np.where(rng.random(target.shape) < 0.6, target, rng.integers(0, classes, target.shape))
    target[rng.random(target.shape) < 0.1] = VOID
    return torch.from_numpy(prediction), torch.from_numpy(target)


def matrix_of(prediction, target, classes=5, batch=4) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    for start in range(0, len(target), batch):
        matrix.update(prediction[start : start + batch], target[start : start + batch])
    return matrix


@pytest.mark.parametrize("present", [(), (0, 2), (3,)], ids=["all classes", "two classes", "one class"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed, present):
    from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

    prediction, target = random_case(seed, present=present)
    matrix = matrix_of(prediction, target)
    valid = (target != VOID).numpy()
    p, t = prediction.numpy()[valid], target.numpy()[valid]

    assert np.array_equal(matrix.counts[:-1].numpy(), confusion_matrix(t, p, labels=range(5)))
    per_class = jaccard_score(t, p, labels=range(5), average=None, zero_division=0)
    per_class[~np.isin(range(5), np.union1d(t, p))] = np.nan
    assert np.allclose(matrix.iou().numpy(), per_class, equal_nan=True)
    scores = matrix.scores()
    assert scores[MIOU] == pytest.approx(jaccard_score(t, p, labels=np.unique(t), average="macro"))
    assert scores["mIoU over classes in target or prediction"] == pytest.approx(np.nanmean(per_class))
    assert scores[PIXEL_ACCURACY] == pytest.approx(accuracy_score(t, p))

    filled = torch.where(target == VOID, 0, target).numpy().ravel()
    assert scores["pixel accuracy, void as background"] == pytest.approx(accuracy_score(filled, prediction.ravel()))
    expected = jaccard_score(filled, prediction.ravel(), labels=np.unique(filled), average="macro")
    assert scores["mIoU, void as background"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_per_image_scores_agree_with_scikit_learn(seed):
    from sklearn.metrics import accuracy_score, jaccard_score, recall_score

    prediction, target = random_case(seed, present=(0, 1, 4))
    absent_zero, present_only, recalls, right = [], [], [], []
    for p, t in zip(prediction.numpy(), target.numpy(), strict=True):
        p, t = p[t != VOID], t[t != VOID]
        absent_zero.append(jaccard_score(t, p, labels=range(5), average=None, zero_division=0).mean())
        present_only.append(jaccard_score(t, p, labels=np.unique(t), average="macro"))
        recalls.append(recall_score(t, p, labels=np.unique(t), average="macro"))
        right.append(accuracy_score(t, p))
    scores = matrix_of(prediction, target).scores()
    assert scores["per-image mIoU, absent class = 0"] == pytest.approx(np.mean(absent_zero))
    assert scores["per-image mIoU over classes present"] == pytest.approx(np.mean(present_only))
    assert scores["per-image class accuracy over classes present"] == pytest.approx(np.mean(recalls))
    assert scores["per-image pixel accuracy"] == pytest.approx(np.mean(right))
    assert scores["per-image pixel accuracy"] != pytest.approx(scores[PIXEL_ACCURACY], abs=1e-9)  # void differs


@pytest.mark.parametrize("present", [(), (0, 2)], ids=["all classes", "two classes"])
def test_the_scores_of_each_class_agree_with_scikit_learn(present):
    from sklearn.metrics import precision_recall_fscore_support

    prediction, target = random_case(0, present=present)
    prediction[prediction == 4] = 1  # a class that is never predicted
    scores = matrix_of(prediction, target).class_scores()
    valid = (target != VOID).numpy()
    p, t = prediction.numpy()[valid], target.numpy()[valid]
    expected = precision_recall_fscore_support(t, p, labels=range(5), zero_division=np.nan)
    for name, values in zip(("precision", "recall", "Dice"), expected[:3], strict=True):
        assert np.allclose(scores[name].numpy(), values, equal_nan=True), name
    assert np.allclose(scores["share of pixels"].numpy(), expected[3] / len(t))
    assert scores["images"].tolist() == [sum(bool((image == c).any()) for image in target) for c in range(5)]


def test_any_batching_and_order_gives_exactly_the_same_scores():
    prediction, target = random_case(0, images=12)
    expected = matrix_of(prediction, target, batch=12).scores()
    for batch in (1, 5):
        order = torch.randperm(12)
        assert matrix_of(prediction[order], target[order], batch=batch).scores() == expected


def test_a_class_that_is_only_predicted_costs_the_others_but_is_not_averaged():
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    prediction = torch.tensor([[[0, 0], [0, 3]]])
    matrix = matrix_of(prediction, target)
    assert matrix.mean_iou() == 0.75
    assert matrix.scores()["mIoU over classes in target or prediction"] == 0.375
    assert matrix.present().tolist() == [True, False, False, False, False]


def test_a_split_of_void_alone_has_no_score_and_no_error():
    matrix = matrix_of(torch.zeros(2, 3, 3, dtype=torch.int64), torch.full((2, 3, 3), VOID))
    assert np.isnan(matrix.mean_iou()) and np.isnan(matrix.pixel_accuracy())
    assert matrix.scores()["pixel accuracy, void as background"] == 1


def test_the_floor_is_the_score_of_predicting_the_most_frequent_class_everywhere():
    prediction, target = random_case(2)
    for most in (0, 2):
        target[0] = most
        expected = matrix_of(torch.full_like(prediction, most), target).scores()
        assert matrix_of(prediction, target).floor().scores() == expected


@pytest.mark.parametrize(
    ("classes", "background"),
    [(("background", "a", "b"), 0), (("pet", "background", "b"), 1), (("wall", "a", "b"), None)],
)
def test_void_counts_as_the_background_or_where_there_is_none_not_at_all(classes, background):
    target = torch.tensor([[[0, 1, 2, VOID]]])
    report = matrix_of(torch.tensor([[[0, 1, 2, 1]]]), target, classes=3).report(classes)
    names = ("mIoU, void as background", "pixel accuracy, void as background")
    for scores in (report["scores"], report["floor"]):
        assert [name in scores for name in names] == [background is not None] * 2
    if background is not None:
        expected = {0: ((1 / 2 + 1 / 2 + 1) / 3, 3 / 4), 1: (1, 1)}[background]
        assert tuple(report["scores"][name] for name in names) == expected


def test_pixel_accuracy_has_the_digits_of_a_float64():
    matrix = ConfusionMatrix(2)
    matrix.counts[:2] = torch.tensor([[2**25, 1], [0, 0]])
    assert matrix.pixel_accuracy() == 2**25 / (2**25 + 1) != 1
    assert matrix.scores()["pixel accuracy, void as background"] == 2**25 / (2**25 + 1)


def test_the_interval_is_that_of_scores_of_images_drawn_again_and_told_where_they_are_few():
    matrix = matrix_of(*random_case(0, images=40), batch=40)
    hit, target, predicted = matrix.images.numpy().swapaxes(0, 1)
    rng, scores = np.random.default_rng(1), []
    for _ in range(4000):
        drawn = rng.integers(40, size=40)
        h, t, p = (part[drawn].sum(0) for part in (hit, target, predicted))
        scores.append((h / (t + p - h)).mean())
    assert matrix.interval() == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.003)
    rare = matrix_of(*random_case(0, images=40, present=(0, 1)), batch=40)
    wrong = torch.full((1, 13, 13), 4)
    rare.update(torch.zeros_like(wrong), wrong)  # a class of one image, never found: a third of all draws lack it
    assert rare.interval()[0] < rare.mean_iou() < rare.interval()[1] < rare.iou()[:2].mean()
    report = matrix.report("abcde")
    low, high = report["interval"]
    assert low < matrix.mean_iou() < high
    many = matrix_of(*random_case(0, images=200), batch=200)
    assert "interval" not in many.report("abcde")
