"""Fetch the data sets: checked, from several addresses, resumable, safe to repeat.

Run       python download.py                          # VOC 2007: all that train.py needs
          python download.py voc2012
          python download.py voc2007 --from-archive ~/Downloads/VOCtest_06-Nov-2007.tar    # fetched by hand
          python download.py drinks                   # says where they are; nothing but a browser can fetch them
"""

import argparse
import contextlib
import errno
import hashlib
import http.client
import os
import queue
import shutil
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.errors import UserError
from common.files import locked

TIMEOUT = 30  # seconds without a byte before an address counts as dead
SLOWEST = 1000  # bytes a second on the average of so long a time, below which it does, too
LARGEST = 4 << 30  # bytes; twice the largest archive
BLOCK = 1 << 20  # bytes read at once


class NoRoomError(OSError):
    """An address announces more than the disk has room for; that may be true."""


@dataclass(frozen=True)
class Archive:
    """A file to fetch and unpack."""

    urls: tuple[str, ...]  # tried in order
    md5: str = ""  # where none is published, a zip's own checksums must do
    into: str = ""  # folder below the data root to unpack in

    @property
    def name(self) -> str:
        """The official file name."""
        return self.urls[0].rsplit("/", 1)[1]


@dataclass(frozen=True)
class Dataset:
    """What --help says of a data set, and its archives."""

    title: str
    size: str  # of the download
    terms: str
    folder: str  # below the data root
    archives: tuple[Archive, ...] = ()
    page: str = ""  # where a browser fetches it, if nothing else can
    markers: tuple[str, ...] = ()  # files at the top of such a set, by which it is found in whatever was fetched


VOC_TERMS = "photographs from Flickr, under Flickr's terms of use; for research and teaching"
VOC_HOSTS = ("https://thor.robots.ox.ac.uk/pascal/VOC", "http://host.robots.ox.ac.uk/pascal/VOC")


def voc_archive(path: str, md5: str) -> Archive:
    """Return the archive at `path` of every host of VOC."""
    return Archive(tuple(f"{host}/{path}" for host in VOC_HOSTS), md5)


PETS_HOSTS = ("https://www.robots.ox.ac.uk/~vgg/data/pets/data", "https://thor.robots.ox.ac.uk/pets")


def pets_archive(name: str, md5: str) -> Archive:
    """Return the archive called `name` of every host of Oxford-IIIT Pet."""
    return Archive(tuple(f"{host}/{name}" for host in PETS_HOSTS), md5, into="oxford-iiit-pet")


ADE_TERMS = "for non-commercial research and teaching; the photographs belong to their owners"
ADE_HOST = "http://data.csail.mit.edu/places/ADEchallenge"


DATASETS = {
    "voc2007": Dataset(
        "PASCAL VOC 2007, 209 + 213 + 210 segmented images",
        "0.9 GB",
        VOC_TERMS,
        "VOCdevkit/VOC2007",
        (
            voc_archive("voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
            voc_archive("voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
        ),
    ),
    "voc2012": Dataset(
        "PASCAL VOC 2012, 1464 + 1449 segmented images",
        "2.0 GB",
        VOC_TERMS,
        "VOCdevkit/VOC2012",
        (voc_archive("voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"),),
    ),
    "pets": Dataset(
        "Oxford-IIIT Pet, 3680 + 3669 images of cats and dogs",
        "0.8 GB",
        "CC BY-SA 4.0",
        "oxford-iiit-pet",
        (
            pets_archive("images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            pets_archive("annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
    ),
    "ade20k": Dataset(
        "ADE20K (SceneParsing 2016), 20210 + 2000 images of places",
        "0.9 GB",
        ADE_TERMS,
        "ADEChallengeData2016",
        (Archive((f"{ADE_HOST}/ADEChallengeData2016.zip",)),),
    ),
    "ade20k-test": Dataset(
        "the test images of ADE20K, without labels: to predict, not to score",
        "0.2 GB",
        ADE_TERMS,
        "release_test",
        (Archive((f"{ADE_HOST}/release_test.zip",)),),
    ),
    "drinks": Dataset(
        "1000 + 50 photographs of three drinks, outlined by polygons",
        "manual",
        "their author states none; ask before you pass them on",
        "drinks",
        page="https://drive.google.com/file/d/1AdMbVK110IKLG7wJKhga2N2fitV1bVPA",
        markers=("segmentation_train.json", "segmentation_test.json"),
    ),
}


def main(argv: list[str] | None = None) -> None:
    """Fetch what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python download.py",
        description=f"{__doc__}\nData sets:\n{table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dataset", nargs="?", default="voc2007", choices=DATASETS, help="which set [voc2007]")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder to put it in [data]")
    parser.add_argument("--from-archive", type=Path, action="append", default=[], metavar="FILE",
                        help="use this file, fetched by hand, instead of downloading it; may be repeated, "
                             "and for drinks be a folder")  # fmt: skip
    parser.add_argument("--mirror", default="", metavar="URL", help="an address to try first, such as a classroom's")
    options = parser.parse_args(argv)
    if not hasattr(tarfile, "data_filter"):
        sys.exit("download.py: this Python cannot unpack archives safely; use 3.10.12, 3.11.4 or any newer one")
    try:
        get(options.dataset, options.data_root, options.from_archive, options.mirror)
    except UserError as error:
        sys.exit(f"download.py: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def table() -> str:
    """Return a description of every data set for --help."""
    lines = []
    for name, data in DATASETS.items():
        lines += [f"  {name:<13}{data.title}", f"{'':<15}{data.size} download, to DATA_ROOT/{data.folder}"]
        lines += [f"{'':<15}terms: {data.terms}"]
    return "\n".join(lines)


def get(name: str, root: Path, local: list[Path], mirror: str = "") -> None:
    """Bring the data set `name` below `root`, taking archives from `local` where they are there.

    Raises:
        UserError: no address works, a local file is not what it should be, or the disk cannot take it.
    """
    data = DATASETS[name]
    print(f"{name}: {data.title}. Terms: {data.terms}.")
    if data.page:
        return take(name, root, local)
    for path in local:
        if path.name not in [archive.name for archive in data.archives]:
            known = " or ".join(archive.name for archive in data.archives)
            raise UserError(f"--from-archive {path}: {name} consists of {known}; keep the official file name")
    with writing(root), alone(root, name):
        for archive in data.archives:
            place = root / archive.into
            place.mkdir(parents=True, exist_ok=True)
            done = place / f".{archive.name}.done"  # written last: an interrupted extraction has none
            if done.exists() and (root / data.folder).is_dir():
                print(f"{archive.name}: already there; delete {done} to unpack it again")
                continue
            given = [path for path in local if path.name == archive.name]
            path = given[0] if given else fetch(archive, place, mirror)
            if not path.is_file():
                raise UserError(f"{path} is missing; give --from-archive the file you fetched")
            if given and (problem := flaw(path, archive)):
                raise UserError(f"{path} is not the official file: {problem}")
            if not archive.md5:
                record(path, place)
            try:
                extract(path, place, holds=str(Path(data.folder).relative_to(archive.into or ".")))
            except UserError:
                if not archive.md5:
                    (place / f"{path.name}.sha256").unlink(missing_ok=True)  # of a file that was none of ours
                raise
            done.touch()
            if not given:
                path.unlink()  # the images are there; the archive would double the space
    print(f"{name} is in {root / data.folder}")


def take(name: str, root: Path, local: list[Path]) -> None:
    """Bring the data set `name`, which only a browser can fetch, below `root` from an archive or folder in `local`.

    Raises:
        UserError: nothing was given; the message says what to fetch and how to go on. Or the set is not in it.
    """
    data = DATASETS[name]
    place, staging = root / data.folder, root / f".{data.folder}.unpacking"
    if all((place / marker).is_file() for marker in data.markers):
        return print(f"{name} is in {place} already")
    if len(local) != 1:
        raise UserError(
            f"{name} has no address that a program can fetch; open {data.page} in a browser, and run\n"
            f"  python download.py {name} --from-archive path/to/what/you/fetched    (a zip, a tar or a folder)"
        )
    if not local[0].exists():
        raise UserError(f"{local[0]} is missing; give --from-archive what you fetched")
    with writing(root), alone(root, name):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            if not (given := local[0]).is_dir():
                extract(given, given := staging / "archive")
            found = next((path.parent for path in sorted(given.rglob(data.markers[0]))), given)
            if missing := [marker for marker in data.markers if not (found / marker).is_file()]:
                raise UserError(f"{local[0]} holds no {missing[0]}; is it {name}?")
            if place.is_dir() and any(place.iterdir()):
                raise UserError(f"{place} holds something else; move it away")
            shutil.copytree(found, staging / "set", ignore=lambda _, names: {staging.name} & {*names})
            if place.is_dir():
                place.rmdir()
            os.replace(staging / "set", place)  # whole or not at all
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    print(f"{name} is in {place}")


def fetch(archive: Archive, root: Path, mirror: str = "") -> Path:
    """Return the archive, downloaded to `root` from the first address that works; a partial file is continued.

    Raises:
        UserError: none works. The message says what to fetch by hand, and how to go on.
    """
    path, reasons, full = root / archive.name, [], []
    partial = path.with_name(f"{path.name}.part")
    if path.exists() and not flaw(path, archive):
        return path
    for url in ([f"{mirror.rstrip('/')}/{archive.name}"] if mirror else []) + list(archive.urls):
        try:
            continued = partial.exists()
            download(url, partial)
            problem = flaw(partial, archive)
            if problem and continued:  # the old part was of another file: start anew
                partial.unlink()
                download(url, partial)
                problem = flaw(partial, archive)
            if not problem:
                os.replace(partial, path)
                return path
            partial.unlink()
            reasons.append(f"  {url}: the file there is not the official one ({problem})")
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no address at all
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # no other address will help
            reasons.append(f"  {url}: {getattr(error, 'reason', None) or error}")
            full += [error] * isinstance(error, NoRoomError)
    if reasons and len(full) == len(reasons):
        raise UserError(f"{archive.name} {full[-1]}")
    checksum = f" (md5 {archive.md5})" if archive.md5 else ""
    raise UserError(
        f"no address of {archive.name} works:\n" + "\n".join(reasons) + "\n"
        f"Fetch it by hand from one of them, or from a copy{checksum}, and run\n"
        f"  python download.py ... --from-archive path/to/{archive.name}"
    )


def download(url: str, partial: Path) -> None:
    """Download `url` to `partial`, going on where an earlier attempt stopped; show a bar with rate and ETA.

    Raises:
        OSError: (URLError and HTTPError are OSErrors) the address does not answer, stalls, or breaks off early.
    """
    have = partial.stat().st_size if partial.exists() else 0
    whole = urllib.request.Request(url, headers={"User-Agent": "download.py"})
    rest = urllib.request.Request(url, headers={"User-Agent": "download.py", "Range": f"bytes={have}-"})
    try:
        response = answer(rest if have else whole)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing after the last byte: the partial file is whole, or of another file
            return
        if not have:
            raise
        response = answer(whole)  # some servers have an error for every Range
    with response:
        if response.status != 206:  # the server starts from the beginning, so do we
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        room = have + shutil.disk_usage(partial.parent).free
        if total and total > LARGEST:
            raise OSError(f"announces {total >> 20} MiB, which no data set has")
        if total and total > room:
            raise NoRoomError(f"needs {total - have >> 20} MiB more, but {partial.parent} has {room - have >> 20} MiB")
        with (
            open(partial, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, desc=partial.stem, unit="B", unit_scale=True, unit_divisor=1024) as bar,
        ):
            since, came = time.monotonic(), 0
            while block := response.read1(BLOCK):  # what has come, so that a stall costs nothing
                if file.tell() + len(block) > (total or min(LARGEST, room)):
                    break
                file.write(block)
                bar.update(len(block))
                came += len(block)
                if (seconds := time.monotonic() - since) > TIMEOUT:
                    if came < SLOWEST * seconds:
                        raise OSError(f"timed out: it sends less than {SLOWEST} bytes a second")
                    since, came = time.monotonic(), 0
        if block:
            partial.unlink()
            raise OSError("sends more than any data set has, or than the disk can take")
        if total and partial.stat().st_size < total:
            raise OSError(f"broke off after {partial.stat().st_size} of {total} bytes; run the command again to go on")


def answer(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Return the answer to `request` once its headers are complete.

    Raises:
        OSError: the address does not answer, or its headers do not end.
    """
    answers = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=TIMEOUT))  # may wait so long for each single byte
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answers.get(timeout=3 * TIMEOUT)
    except queue.Empty:
        raise OSError("timed out: its headers do not end") from None
    if isinstance(response, Exception):
        raise response
    return response


def extract(archive: Path, root: Path, holds: str = ".") -> None:
    """Unpack `archive` (tar, tar.gz or zip), which holds a folder `holds`, into `root`; nothing may land outside it.

    Files are unpacked beside their place and moved there one by one.

    Raises:
        UserError: the archive is damaged or another one, or holds a path that would leave `root`.
    """
    staging = root / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        if archive.suffix.lower() == ".zip" or zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                members = file.infolist()
                for member in members:
                    target = (staging / member.filename).resolve()
                    if not target.is_relative_to(staging.resolve()):
                        raise UserError(f"{archive} would write to {member.filename}, outside its folder; not unpacked")
                for member in tqdm(members, desc=f"unpacking {archive.name}", unit=" files"):
                    file.extract(member, staging)
        else:
            with tarfile.open(archive) as file:
                for member in tqdm(file, desc=f"unpacking {archive.name}", unit=" files"):
                    if not member.isreg() and not member.isdir():
                        raise UserError(f"{archive} holds {member.name}, a link or a device; no data set has any")
                    file.extract(member, staging, filter="data")  # refuses paths that lead outside
        if not (staging / holds).is_dir():
            raise UserError(f"{archive} holds no folder {holds}; is it the right file?")
    except tarfile.FilterError as error:
        raise UserError(f"{archive} would write outside its folder ({error}); it was not unpacked") from None
    except UserError:
        raise
    except Exception as error:  # which one depends on where the damage is
        if isinstance(error, OSError) and error.errno:  # the disk's, not the archive's
            raise
        reason = "neither a zip nor a tar" if "\n" in str(error) else str(error) or type(error).__name__
        raise UserError(f"{archive} is damaged ({reason}); put a whole one in its place and run this again") from None
    else:
        for path in sorted(staging.rglob("*")):
            place = root / path.relative_to(staging)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                os.replace(path, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def flaw(path: Path, archive: Archive) -> str:
    """Say what is wrong with the file at `path`, which should be `archive`; "" if nothing is."""
    if archive.md5:
        return "" if md5(path) == archive.md5 else f"its md5 sum differs from {archive.md5}"
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            return f"{damaged} in it is damaged" if damaged else ""
    except Exception as error:  # which one depends on where the damage is
        return f"it is cut short or damaged: {error}"


def record(path: Path, root: Path) -> None:
    """Write the SHA-256 of the archive at `path` to `root`, as sha256sum does, or compare it with the one there.

    Raises:
        UserError: it is another archive than the one that was used before.
    """
    line, note = f"{digest(path, hashlib.sha256())}  {path.name}\n", root / f"{path.name}.sha256"
    if note.exists() and note.read_text(errors="replace") != line:
        raise UserError(f"{path} is not the archive whose SHA-256 is in {note}; delete that note if a change is right")
    unfinished = note.with_name(f".{note.name}.tmp")
    unfinished.write_text(line)
    os.replace(unfinished, note)


def md5(path: Path) -> str:
    """Return the md5 sum of a file, in hexadecimal."""
    return digest(path, hashlib.md5())


def digest(path: Path, state: "hashlib._Hash") -> str:
    """Return what `state` makes of a file, in hexadecimal."""
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            state.update(block)
    return state.hexdigest()


@contextlib.contextmanager
def alone(root: Path, name: str) -> Iterator[None]:
    """Let one process at a time bring the data set `name` below `root`; the others wait, and then find it there."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(lock := root / f".{name}.lock"):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                lock.unlink()


@contextlib.contextmanager
def writing(root: Path):
    """Turn a disk that is full or cannot be written into a sentence."""
    try:
        yield
    except shutil.Error as error:  # a list of all files that could not be copied
        raise UserError(f"cannot write to {root}: {error.args[0][0][2]}") from error
    except OSError as error:
        raise UserError(f"cannot write to {root}: {error.strerror or error}") from error


if __name__ == "__main__":
    main()
