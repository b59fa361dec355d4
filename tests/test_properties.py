"""Files as the internet has them, drawn at random: a reader returns what it promises or says one sentence.

Quick, a few inputs of each kind, always the same ones; with `-m slow` many, other ones every time.
"""

import io
import json
import resource
import shutil
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    box,
    count,
    python,
    write_drinks,
    write_folder,
    write_palette_mask,
    write_pets,
    write_project,
    write_voc,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.datasets import DATASETS, VOID
from common.datasets.folder import folder, inspect
from common.datasets.reading import open_image, read_image, read_mask
from common.datasets.shapes import draw_scene
from common.datasets.voc import PALETTE
from common.errors import UserError
from common.labels import LabelMap
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix
from download import get

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL.*")  # of files that it reads all the same

VOC = LabelMap.plain(PALETTE)
SECONDS = 5  # that one input may take; a hang is longer
tries = pytest.mark.parametrize("tries", [40, pytest.param(500, marks=pytest.mark.slow, id="many")])


def holds(check, tries: int, inputs: st.SearchStrategy, examples: list = ()) -> None:
    """Call `check` with `tries` draws of the inputs, and with the `examples`."""

    @given(inputs)
    def test(drawn):
        count["inputs tried"] += 1
        check(drawn)

    for known in examples:
        test = example(known)(test)
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    settings(
        max_examples=tries, deadline=1000 * SECONDS, derandomize=tries < 500, database=None, suppress_health_check=slow
    )(test)()


def result_or_sentence(call):
    """Return what `call` returns; None if it raises UserError, which must be one sentence. Nothing else may happen."""
    try:
        return call()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)
        return None


# Files


@st.composite
def damaged(draw, whole: bytes):
    """Draw `whole` with some bytes changed, repeated or cut off; of a PNG, half the time, with checksums to match."""
    body = bytearray(whole)
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(body) - 1))
        kind = draw(st.sampled_from(["set", "set", "repeat", "remove"]))
        length = draw(st.integers(1, 12))
        if kind == "set":
            body[place] = draw(st.integers(0, 255))
        else:
            body[place : place + length * (kind == "remove")] = body[place : place + length] * (kind == "repeat")
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    return with_checksums(bytes(body)) if draw(st.booleans()) else bytes(body)


def with_checksums(png: bytes) -> bytes:
    """Return a PNG with the checksum of every chunk put right, as far as it is one."""
    body, place = bytearray(png), 8
    while place + 12 <= len(body):
        (length,) = struct.unpack(">I", body[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(body):
            break
        body[end : end + 4] = struct.pack(">I", zlib.crc32(body[place + 4 : end]))
        place = end + 4
    return bytes(body)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Return small pictures in many formats and modes, each as it would lie on a disk."""
    image, mask = draw_scene(0, 12)
    turned = image.getexif()
    turned[0x0112] = 6
    palette = Image.fromarray(mask)
    palette.putpalette(np.array(PALETTE, dtype=np.uint8).tobytes())
    return {
        "JPEG": encoded(image, "JPEG", exif=turned),
        "CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "PNG": encoded(image, "PNG", exif=turned),
        "palette": encoded(palette, "PNG"),
        "grey": encoded(Image.fromarray(mask), "PNG"),
        "transparent": encoded(image.convert("RGBA"), "PNG"),
        "grey, transparent": encoded(image.convert("LA"), "PNG"),
        "one bit": encoded(image.convert("1"), "PNG"),
        "16 bits": encoded(Image.fromarray(mask.astype(np.uint16) * 257), "PNG"),
        "GIF": encoded(palette, "GIF"),
        "BMP": encoded(image, "BMP"),
        "TIFF of floats": encoded(Image.fromarray(mask.astype(np.float32) + 0.5), "TIFF"),
        "TIFF of nothing": encoded(Image.fromarray(np.full((12, 12), np.nan, dtype=np.float32)), "TIFF"),
        "TIFF of integers": encoded(Image.fromarray(mask.astype(np.int32) - 3), "TIFF"),
        "TIFF in Lab": encoded(image.convert("LAB"), "TIFF"),
        "WebP": encoded(image, "WEBP"),
        "EPS": encoded(image, "EPS"),
    }


PICTURES = pictures()
files = st.sampled_from(sorted(PICTURES)).flatmap(lambda name: damaged(PICTURES[name])) | st.binary(max_size=300)


@tries
def test_any_file_is_an_image_or_a_sentence(tries, tmp_path):
    path = tmp_path / "image.jpg"

    def check(body):
        path.write_bytes(body)
        image = result_or_sentence(lambda: read_image(path))
        assert image is None or (image.mode == "RGB" and min(image.size) > 0)

    holds(check, 3 * tries, files, examples=PICTURES.values())


@tries
def test_any_file_is_a_mask_of_known_classes_or_a_sentence(tries, tmp_path):
    path = tmp_path / "mask.png"

    def check(body):
        path.write_bytes(body)
        mask = result_or_sentence(lambda: read_mask(path, VOC))
        if mask is not None:
            assert mask.dtype == np.uint8 and mask.ndim == 2
            assert set(np.unique(mask).tolist()) <= {*range(21), VOID}

    holds(check, 3 * tries, files, examples=PICTURES.values())


@tries
def test_a_whole_mask_is_read_as_it_was_written(tries, tmp_path):
    path = tmp_path / "mask.png"

    def check(drawn):
        height, width, seed = drawn
        mask = np.random.default_rng(seed).choice([*range(21), VOID], (height, width)).astype(np.uint8)
        write_palette_mask(path, mask)
        assert np.array_equal(read_mask(path, VOC), mask)
        colors = np.array([*PALETTE, *[(0, 0, 0)] * 234, (224, 224, 192)], dtype=np.uint8)[mask]
        Image.fromarray(colors).save(path)
        assert np.array_equal(read_mask(path, VOC), mask)

    holds(check, tries, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0)))


def read_all(dataset: str, root: Path) -> list | None:
    """Read every sample of a data set; None if that ended in a sentence."""

    def read():
        spec = DATASETS[dataset](root)
        samples = [sample for split in spec.splits.values() for sample in split]
        return [(spec, *spec.read(sample)) for sample in samples]

    found = result_or_sentence(read)
    for spec, image, mask in found or []:
        assert image.size == mask.shape[::-1] and image.mode == "RGB" and mask.dtype == np.uint8
        assert set(np.unique(mask).tolist()) <= {*range(len(spec.classes)), VOID}
    return found


@tries
def test_any_trimap_is_one_of_three_classes_or_a_sentence(tries, tmp_path):
    folder = write_pets(tmp_path, 2, 1, side=12)
    trimap = folder / "annotations/trimaps/beagle_0.png"
    whole = trimap.read_bytes()

    def check(body):
        trimap.write_bytes(body)
        read_all("pets", tmp_path)

    holds(check, tries, damaged(whole) | files, examples=[whole, *PICTURES.values()])


# Lists


names = st.one_of(st.sampled_from(["000000", "000001", "../000000", "/", ".", "#", "-1"]), st.text(max_size=30))
listings = st.lists(names, max_size=6).map("\n".join).map(lambda text: text.encode(errors="replace"))


@tries
def test_any_list_of_voc_is_a_list_of_images_or_a_sentence(tries, tmp_path):
    folder = write_voc(tmp_path, {"train": 2, "val": 1, "test": 1}, side=12)

    def check(body):
        (folder / "ImageSets/Segmentation/train.txt").write_bytes(body)
        read_all("voc2007", tmp_path)

    holds(check, tries, listings | st.binary(max_size=60), examples=[b"000000\r\n000001\r\n", b"\xef\xbb\xbf000000"])


@tries
def test_any_list_of_pets_is_a_list_of_images_or_a_sentence(tries, tmp_path):
    folder = write_pets(tmp_path, 2, 1, side=12)

    def check(body):
        (folder / "annotations/trainval.txt").write_bytes(body)
        read_all("pets", tmp_path)

    holds(check, tries, listings | st.binary(max_size=60), examples=[b"Abyssinian_0 1 1 1\r\n", b"# a comment\n"])


# Folders of one's own

listed = st.lists(
    st.sampled_from(["0", "1.jpg", "trip/2", "./3.x", "..", "/", "\\", ""]) | st.text(max_size=9), max_size=5
)
lines = st.lists(
    st.sampled_from(
        ["sky", "tree #00ff00", "car 255,0,0", "cat 9 9 9", "ignore 255", "ignore 0", "ignore 1 2 3", "# 1 2"]
    )
    | st.text(max_size=12)
    | st.from_regex(r"\w{0,2} ?(#[\da-f]{5,7}|(\d{1,4} ?){0,4})", fullmatch=True),
    max_size=6,
)


@tries
@pytest.mark.parametrize("collect", [False, True], ids=["to train on", "to check"])
def test_any_lists_and_classes_are_a_data_set_or_a_sentence(tries, collect, tmp_path):
    photos = write_folder(tmp_path / "photos", 5, side=12)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (photos / kind / "trip").mkdir()
        (photos / kind / f"2.{suffix}").rename(photos / kind / f"trip/2.{suffix}")

    def check(files):
        for name, body in files.items():
            (photos / name).unlink(missing_ok=True)
            if body is not None:
                text = body if isinstance(body, bytes) else "\n".join(body).encode(errors="replace")
                (photos / name).write_bytes(text)
        problems = []
        read = partial(inspect, problems=problems) if collect else folder
        spec = result_or_sentence(lambda: read(photos, tmp_path, progress=False))
        for problem in problems:
            assert "\n" not in str(problem) and len(str(problem)) < 1000, str(problem)
        if spec is None or problems:
            return
        samples = [sample for split in spec.splits.values() for sample in split]
        names = {sample[0] for sample in samples}
        assert len(samples) == len(names) and names <= {"0", "1", "trip/2", "3", "4"} and all(spec.splits.values())
        assert 2 <= len(set(spec.classes)) == len(spec.classes) == len(spec.palette)
        for sample in samples:
            result_or_sentence(lambda sample=sample: spec.read(sample))

    body = st.binary(max_size=20)
    drawn = {f"{split}.txt": st.none() | listed | body for split in ("train", "val", "test")}
    holds(check, tries, st.fixed_dictionaries({"classes.txt": st.none() | lines | body, **drawn}))


# VIA projects

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Return the path to every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, part in inner for place in places(part, (*path, key))]


@st.composite
def projects(draw, whole: dict):
    """Draw a project of VIA in which up to three values are replaced by something else."""
    project = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(0, 3))):
        *path, last = draw(st.sampled_from(places(project)[1:]))
        inner = project
        for key in path:
            inner = inner[key]
        inner[last] = draw(anything)
    return json.dumps(project).encode(errors="surrogatepass")


@tries
def test_any_via_project_is_polygons_or_a_sentence(tries, tmp_path):
    folder = write_drinks(tmp_path, train=4, test=1)
    path = folder / "segmentation_train.json"
    whole = json.loads(path.read_bytes())

    def check(body):
        path.write_bytes(body)
        read_all("drinks", tmp_path)

    texts = projects(whole) | damaged(path.read_bytes()) | anything.map(lambda value: json.dumps(value).encode())
    empty = json.dumps({"_via_img_metadata": {}}).encode()
    holds(check, 2 * tries, texts, examples=[empty, b"[" * 100_000, b'{"_via_img_metadata": ' + b"9" * 9999])


@tries
def test_any_polygon_is_drawn_within_the_image(tries, tmp_path):
    folder = write_drinks(tmp_path, train=4, test=1)
    far = st.floats(-999_999, 999_999) | st.integers(-999_999, 999_999)

    def check(corners):
        region = box(0, 0, 1, 1)
        x, y = zip(*corners, strict=True)
        region["shape_attributes"] |= {"all_points_x": list(x), "all_points_y": list(y)}
        write_project(folder / "segmentation_test.json", {"0000004.jpg": [region]})
        assert len(read_all("drinks", tmp_path)) == 5

    holds(check, tries, st.lists(st.tuples(far, far), min_size=3, max_size=60))


# Archives


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@tries
def test_any_archive_is_unpacked_in_its_folder_or_a_sentence(tries, tmp_path, kind):
    write_drinks(tmp_path / "fetched", train=2, test=1)
    made = Path(shutil.make_archive(tmp_path / "made", kind, tmp_path / "fetched"))
    path, inner = tmp_path / f"drinks{made.suffix}", tmp_path / "inner"
    expected = {*tmp_path.iterdir(), path, inner}

    def check(body):
        path.write_bytes(body)
        result_or_sentence(lambda: get("drinks", inner / "data", [path]))
        assert set(tmp_path.iterdir()) <= expected and {p.name for p in inner.glob("*")} <= {"data"}
        assert {p.name for p in (inner / "data").glob("*")} <= {"drinks"}
        shutil.rmtree(inner / "data", ignore_errors=True)

    holds(check, tries // 2, damaged(made.read_bytes()))


# Bombs


def png_of(width: int, height: int, rows: bytes = b"") -> bytes:
    """Return a PNG of a few bytes that claims to be an RGB picture of such a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [read_image, lambda path: read_mask(path, VOC)], ids=["image", "mask"])
def test_a_picture_that_claims_to_be_huge_is_refused_and_takes_no_memory(tmp_path, read):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(60_000, 60_000, bytes(1 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"bomb\.png cannot be read \(.*could be decompression bomb") as error:
        read(path)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def test_a_bomb_among_the_images_ends_a_run_in_one_sentence(voc_root):
    (voc_root / "VOCdevkit/VOC2007/JPEGImages/000003.jpg").write_bytes(png_of(60_000, 60_000))
    done = python("train.py", "--data-root", voc_root, "--device", "cpu")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "000003.jpg cannot be read" in done.stderr.splitlines()[-1]
    count["inputs tried"] += 1


def test_pictures_that_would_start_another_program_are_refused(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(PICTURES["EPS"])  # Pillow would have Ghostscript run what is in it
    with pytest.raises(UserError, match=r"image\.jpg cannot be read \(cannot identify"):
        open_image(path)


# The metric


def scores_by_hand(prediction: np.ndarray, target: np.ndarray, classes: int) -> dict[str, float]:
    """Return mIoU and pixel accuracy as their definitions have it: pixel by pixel, class by class."""
    hits, unions, present = [0] * classes, [0] * classes, [False] * classes
    right = valid = 0
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t == VOID:
            continue
        valid += 1
        right += p == t
        present[t] = True
        for c in {p, t}:
            unions[c] += 1
        hits[t] += p == t
    ious = [hits[c] / unions[c] for c in range(classes) if present[c]]
    nan = float("nan")
    return {MIOU: sum(ious) / len(ious) if ious else nan, PIXEL_ACCURACY: right / valid if valid else nan}


@st.composite
def predictions(draw):
    """Draw the number of classes, a prediction and a target (N, H, W), and the sizes of the batches."""
    classes, images, side = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prediction = rng.integers(0, draw(st.integers(1, classes)), (images, side, side))
    target = rng.integers(0, draw(st.integers(1, classes)), (images, side, side))
    target[rng.random(target.shape) < draw(st.sampled_from([0, 0.3, 1]))] = VOID
    return classes, prediction, target, draw(st.lists(st.integers(1, 4), min_size=images, max_size=images))


@tries
def test_the_metric_is_its_definition_however_images_are_batched(tries):
    def check(drawn):
        classes, prediction, target, sizes = drawn
        whole = ConfusionMatrix(classes)
        whole.update(torch.from_numpy(prediction), torch.from_numpy(target))
        expected = scores_by_hand(prediction, target, classes)
        scores = whole.scores()
        assert {key: scores[key] for key in expected} == pytest.approx(expected, nan_ok=True)
        assert all(0 <= value <= 1 or value != value for value in scores.values())

        parts, start = ConfusionMatrix(classes), 0
        for size in sizes:
            batch = slice(start, start := start + size)
            parts.update(torch.from_numpy(prediction[batch]), torch.from_numpy(target[batch]))
        assert torch.equal(parts.counts, whole.counts) and torch.equal(parts.images, whole.images)

        shuffled = ConfusionMatrix(classes)
        shuffled.update(torch.from_numpy(prediction[::-1].copy()), torch.from_numpy(target[::-1].copy()))
        assert str(shuffled.scores()) == str(scores)  # to the last digit; str, since NaN is not NaN

    holds(check, 2 * tries, predictions())
