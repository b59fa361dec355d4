"""What the tests share: small data on disk, in the official layout, made from the generated scenes."""

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import train
from common import checkpoint
from common.datasets.segmentation_set import SegmentationSet
from common.datasets.shapes import CLASSES, COUNTS, draw_scene
from common.datasets.shapes import PALETTE as SHAPES_PALETTE
from common.datasets.voc import PALETTE
from common.labels import VOID
from common.models import DilatedFCN
from common.reporting import confusion, overfitting, plotting
from common.run import Run

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SHARED", REPOSITORY.parent / "shared"))  # real images, where the developers have them

# The tensors of tests are small: more threads gain nothing, and wait for each other where the machine is busy.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give the quick suite as a whole several processes; anything less is done before they have started."""
    asked, option = config.args != config.getini("testpaths"), config.option
    if asked or option.markexpr != "not slow" or option.keyword or option.usepdb or hasattr(config, "workerinput"):
        return
    if config.pluginmanager.hasplugin("xdist") and option.numprocesses is None:
        option.numprocesses, option.dist = min(4, os.cpu_count()), "worksteal"


needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"the real images are not at {SHARED}")


def write_voc(root: Path, counts: dict[str, int], side: int = 64, year: str = "VOC2007") -> Path:
    """Write generated scenes as VOC data below `root`: JPEGs, palette PNGs and lists; return the VOC folder."""
    folder, first = root / "VOCdevkit" / year, 0
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for split, count in counts.items():
        names = [f"{index:06}" for index in range(first, first + count)]
        first += count
        for name in names:
            image, mask = draw_scene(int(name), side)
            image.save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            write_palette_mask(folder / "SegmentationClass" / f"{name}.png", mask)
        (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def write_palette_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask as VOC does: a PNG of palette indices."""
    picture = Image.fromarray(mask)
    picture.putpalette(np.array(PALETTE, dtype=np.uint8).tobytes())  # turns a grey picture into a palette one
    picture.save(path)


def write_ade20k(root: Path, counts: dict[str, int], side: int = 32) -> Path:
    """Write pictures with labels from 0 to 150 in ADE20K's layout below `root`; return its folder.

    Every label occurs in every seventh picture or so; each picture has label 0 in its upper left corner.
    """
    folder, rng = root / "ADEChallengeData2016", np.random.default_rng(0)
    for split, count in counts.items():
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        short = {"training": "train", "validation": "val"}[split]
        for i in range(1, count + 1):
            labels = rng.integers(0, 151, (5, 5))
            labels[0, 0] = 0
            mask = labels.repeat(-(-side // 5), 0).repeat(-(-side // 5), 1)[:side, :side].astype(np.uint8)
            pixels = np.stack([mask, 255 - mask, mask // 2], axis=2) + rng.integers(0, 20, (side, side, 1), np.uint8)
            name = f"ADE_{short}_{i:08}"
            Image.fromarray(pixels).save(folder / "images" / split / f"{name}.jpg", quality=95)
            Image.fromarray(mask).save(folder / "annotations" / split / f"{name}.png")
    return folder


def write_folder(root: Path, count: int = 8, side: int = 48) -> Path:
    """Write generated scenes as a data set of one's own: images/ of JPEGs and masks/ of grey PNGs; return `root`."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        image, mask = draw_scene(index, side)
        image.save(root / "images" / f"{index}.jpg", quality=95)
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    return root


def write_pets(root: Path, trainval: int, test: int, side: int = 64) -> Path:
    """Write generated scenes as Oxford-IIIT Pet below `root`, in its official layout; return the folder."""
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations/trimaps").mkdir(parents=True)
    names = {"trainval": [f"Abyssinian_{i}" for i in range(trainval)], "test": [f"beagle_{i}" for i in range(test)]}
    for split, part in names.items():
        for index, name in enumerate(part):
            image, mask = draw_scene(1000 * len(split) + index, side)
            image.save(folder / "images" / f"{name}.jpg")
            trimap = np.where(mask == VOID, 3, np.where(mask == 0, 2, 1)).astype(np.uint8)
            Image.fromarray(trimap).save(folder / "annotations/trimaps" / f"{name}.png")
        lines = [f"{name} 1 1 1" for name in part]
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """A data root with 10 + 6 + 7 small images in VOC 2007's layout."""
    root = tmp_path / "data"
    write_voc(root, {"train": 10, "val": 6, "test": 7})
    return root


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test where its files disturb nobody."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make train.py train a network that takes half the time, in checkpoints of a quarter of the size."""
    monkeypatch.setattr(train, "BasicFCN", DilatedFCN)


FEW = {"train": 24, "val": 10, "test": 7}  # scenes; different numbers, lest one split pass for another


def make_few(patch: pytest.MonkeyPatch, **counts: int) -> None:
    """Make the generated set as small as `counts` says, by default as FEW."""
    for split, count in (counts or FEW).items():
        patch.setitem(COUNTS, split, count)


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the generated set small."""
    make_few(monkeypatch)


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take longer than a small training."""
    save = plotting.save
    patch.setattr(plotting, "save", lambda figure, path: figure and save(figure, path))
    for name in ("plot_curves", "plot_augmentation", "predictions"):
        patch.setattr(plotting, name, lambda *args, **options: None)
    patch.setattr(confusion, "plot_confusion", lambda *args: None)
    for name in ("save", "side_by_side"):
        patch.setattr(overfitting, name, lambda *args: None)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `leave_out_pictures`."""
    leave_out_pictures(monkeypatch)


def write_checkpoint(
    path: Path, model: nn.Module | None = None, size: tuple[int, int] = (32, 32), **about
) -> nn.Module:
    """Write `model`, by default an untrained DilatedFCN, as if it had been trained on shapes; return it."""
    torch.manual_seed(0)
    model = (model or DilatedFCN(len(CLASSES))).eval()
    data = SegmentationSet(
        images=torch.zeros(1, 3, *size, dtype=torch.uint8),
        masks=torch.zeros(1, *size, dtype=torch.uint8),
        names=["0"],
        classes=CLASSES,
        palette=SHAPES_PALETTE,
        dataset="shapes",
        split="train",
    )
    contents = checkpoint.describe(
        model, data, Run(name=path.stem.removeprefix("best_")), [{"epoch": 1, "val_miou": 0.5}]
    )
    checkpoint.save(path, contents | about)
    return model


def started(main=lambda: None, parameters=None, **settings) -> Run:
    """Return a started run on the CPU in fp32."""
    settings = {"device": "cpu", "precision": "fp32", "name": "test"} | settings
    return Run(**settings).start(main, parameters or {})


def python(*arguments: object, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess:
    """Run a script of the repository in the current folder, as a user would; "tools.predict" as a module."""
    script, *flags = arguments
    script = ["-m", script] if str(script).startswith("tools.") else [REPOSITORY / str(script)]
    command = [sys.executable, *script, *flags]
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def one_sentence(result: subprocess.CompletedProcess) -> str:
    """Return the error message of a failed script, having checked that it is no traceback."""
    assert result.returncode not in (0, -9), result.stdout
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


DRINKS_SIZE = (48, 64)  # height and width of the photographs that write_drinks writes


def polygon(corners, name: object = "1") -> dict:
    """Return a region as VIA writes it."""
    x, y = zip(*corners, strict=True)
    shape = {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)}
    return {"shape_attributes": shape, "region_attributes": {"Name": name}}


def box(left, top, right, bottom, name: object = "1") -> dict:
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], name)


def write_project(path: Path, regions: dict[str, list]) -> None:
    """Write a VIA project that lists a region list for each image."""
    entries = {
        f"{name}99": {"filename": name, "size": 99, "regions": r, "file_attributes": {}} for name, r in regions.items()
    }
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}}))


def write_drinks(root: Path, train: int = 20, test: int = 4) -> Path:
    """Write photographs of noise, and boxes on them, in the layout of the original; return the folder."""
    folder, rng = root / "drinks", np.random.default_rng(0)
    folder.mkdir(parents=True)
    number = 0
    for split, count in (("train", train), ("test", test)):
        regions = {}
        for _ in range(count):
            name = f"{number:07}.jpg"
            Image.fromarray(rng.integers(0, 256, (*DRINKS_SIZE, 3), dtype=np.uint8)).save(folder / name)
            regions[name] = [box(4 + 15 * i, 5, 14 + 15 * i, 30 + number % 9, str(i + 1)) for i in range(number % 4)]
            number += 1
        write_project(folder / f"segmentation_{split}.json", regions)
    return folder


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the bytes in `server.files`, with Range; `server.cut` breaks the next answer off after so many bytes.

    A number in place of the bytes is an error.
    """

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        body = server.files.get(self.path, 404)
        if isinstance(body, int):
            self.send_error(body)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if server.ranges and wanted else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + server.cut] if server.cut else body[start:])
        server.cut = 0

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A running HTTP server with the attributes that `Handler` reads; `server.url` is its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.ranges, server.cut = {}, [], True, 0
        server.handle_error = lambda *_: None  # a client that gave up is no news
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tar_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(folder, "VOCdevkit")
    return buffer.getvalue()
