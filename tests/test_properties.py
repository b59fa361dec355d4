"""Files as the internet has them, drawn at random: a reader returns what it promises or says one sentence.

Quick, a few inputs of each kind, always the same ones; with `-m slow` many, other ones every time.
"""

import io
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import count, write_drinks, write_folder, write_palette_mask, write_voc
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.datasets import DATASETS, VOID
from common.datasets.folder import folder, inspect
from common.datasets.reading import read_image, read_mask
from common.datasets.shapes import draw_scene
from common.datasets.voc import PALETTE
from common.labels import LabelMap
from common.system.errors import UserError
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
    """Draw `whole` with some bytes changed, repeated or cut off."""
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


# Lists


names = st.one_of(st.sampled_from(["000000", "000001", "../000000", "/", ".", "#", "-1"]), st.text(max_size=30))
listings = st.lists(names, max_size=6).map("\n".join).map(lambda text: text.encode(errors="replace"))


@tries
def test_any_list_of_voc_is_a_list_of_images_or_a_sentence(tries, tmp_path):
    listing = write_voc(tmp_path, {"train": 2, "val": 1, "test": 1}, side=12) / "ImageSets/Segmentation/train.txt"

    def read():
        spec = DATASETS["voc2007"](tmp_path)
        return [spec.read(sample) for split in spec.splits.values() for sample in split]

    def check(body):
        listing.write_bytes(body)
        for image, mask in result_or_sentence(read) or []:
            assert image.size == mask.shape[::-1] == (12, 12)

    holds(check, tries, listings | st.binary(max_size=60), examples=[b"000000\r\n000001\r\n", b"\xef\xbb\xbf000000"])


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


# Archives


@pytest.mark.parametrize("kind", ["zip", "gztar"])
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
