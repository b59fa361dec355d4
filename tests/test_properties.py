"""Files as the internet has them, drawn at random: a reader returns what it promises or says one sentence.

Quick, a few inputs of each kind, always the same ones; with `-m slow` many, other ones every time.
"""

import io

import numpy as np
import pytest
from conftest import count, write_folder, write_palette_mask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.datasets import VOID
from common.datasets.folder import folder
from common.datasets.reading import read_image, read_mask
from common.datasets.shapes import draw_scene
from common.datasets.voc import PALETTE
from common.labels import LabelMap
from common.system.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL.*")  # of files that it reads all the same

VOC = LabelMap.plain(PALETTE)
tries = pytest.mark.parametrize("tries", [40, pytest.param(500, marks=pytest.mark.slow, id="many")])


def holds(check, tries: int, inputs: st.SearchStrategy, examples: list = ()) -> None:
    """Call `check` with `tries` draws of the inputs, and with the `examples`."""

    @given(inputs)
    def test(drawn):
        count["inputs tried"] += 1
        check(drawn)

    for known in examples:
        test = example(known)(test)
    settings(max_examples=tries, deadline=5000, derandomize=tries < 500, database=None,
             suppress_health_check=[HealthCheck.too_slow])(test)()  # fmt: skip


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
        "one bit": encoded(image.convert("1"), "PNG"),
        "16 bits": encoded(Image.fromarray(mask.astype(np.uint16) * 257), "PNG"),
        "TIFF": encoded(image, "TIFF"),
        "GIF": encoded(palette, "GIF"),
        "BMP": encoded(image, "BMP"),
        "WebP": encoded(image, "WEBP"),
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
def test_any_lists_and_classes_are_a_data_set_or_a_sentence(tries, tmp_path):
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
        spec = result_or_sentence(lambda: folder(photos, tmp_path, progress=False))
        if spec is None:
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
