"""Download and unpack a data set. Run the same command again after an interruption: it continues.

Run       python download.py                          # VOC 2007, for train.py
          python download.py voc2012
          python download.py voc2007 --from-archive ~/Downloads/VOCtest_06-Nov-2007.tar    # fetched by hand
          python download.py drinks                   # says how to fetch them with a browser
"""

import argparse
import errno
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.system.errors import UserError

TIMEOUT = 30  # seconds without a byte before the next address is tried
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # another address or archive would not help


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack."""

    hosts: tuple[str, ...]  # tried in order
    path: str  # the same on every host
    md5: str = ""  # if none is published, the checksums inside the zip are used

    @property
    def name(self) -> str:
        """Official file name."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Dataset:
    """A data set: its archives, and its description for --help."""

    title: str
    size: str  # of the download
    terms: str
    folder: str  # below the data root
    archives: tuple[Archive, ...] = ()
    into: str = ""  # folder below the data root to unpack into
    page: str = ""  # web page, if only a browser can fetch the set
    markers: tuple[str, ...] = ()  # with `page`: files in the top folder of the set, used to find it in an archive


VOC_HOSTS = ("https://thor.robots.ox.ac.uk/pascal/VOC", "http://host.robots.ox.ac.uk/pascal/VOC")
VOC_TERMS = "photographs from Flickr, under Flickr's terms of use; for research and teaching"
PETS_HOSTS = ("https://www.robots.ox.ac.uk/~vgg/data/pets/data", "https://thor.robots.ox.ac.uk/pets")
ADE_HOSTS = ("http://data.csail.mit.edu/places/ADEchallenge",)
ADE_TERMS = "for non-commercial research and teaching; the photographs belong to their owners"

# fmt: off
DOWNLOADS = {
    "voc2007": Dataset(
        "PASCAL VOC 2007, 209 + 213 + 210 segmented images", "0.9 GB", VOC_TERMS, "VOCdevkit/VOC2007",
        (Archive(VOC_HOSTS, "voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
         Archive(VOC_HOSTS, "voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f")),
    ),
    "voc2012": Dataset(
        "PASCAL VOC 2012, 1464 + 1449 segmented images", "2.0 GB", VOC_TERMS, "VOCdevkit/VOC2012",
        (Archive(VOC_HOSTS, "voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"),),
    ),
    "pets": Dataset(
        "Oxford-IIIT Pet, 3680 + 3669 images of cats and dogs", "0.8 GB", "CC BY-SA 4.0", "oxford-iiit-pet",
        (Archive(PETS_HOSTS, "images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
         Archive(PETS_HOSTS, "annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f")),
        into="oxford-iiit-pet",
    ),
    "ade20k": Dataset(
        "ADE20K (SceneParsing 2016), 20210 + 2000 images of places", "0.9 GB", ADE_TERMS, "ADEChallengeData2016",
        (Archive(ADE_HOSTS, "ADEChallengeData2016.zip"),),
    ),
    "ade20k-test": Dataset(
        "the test images of ADE20K, without labels, only for prediction", "0.2 GB", ADE_TERMS, "release_test",
        (Archive(ADE_HOSTS, "release_test.zip"),),
    ),
    "drinks": Dataset(
        "1000 + 50 photographs of three drinks, labelled with polygons", "manual",
        "none stated by the author; ask before you pass them on", "drinks",
        page="https://drive.google.com/file/d/1AdMbVK110IKLG7wJKhga2N2fitV1bVPA",
        markers=("segmentation_train.json", "segmentation_test.json"),
    ),
}
# fmt: on


def main(argv: list[str] | None = None) -> None:
    """Fetch the data set that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python download.py",
        description=f"{__doc__}\nData sets:\n{dataset_table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dataset", nargs="?", default="voc2007", choices=DOWNLOADS, help="data set to fetch [voc2007]")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder for all data sets [data]")
    parser.add_argument("--from-archive", type=Path, action="append", default=[], metavar="FILE",
                        help="use this file, fetched by hand, instead of a download; may be given several times; "
                             "for drinks, it may be a folder")  # fmt: skip
    parser.add_argument("--mirror", default="", metavar="URL", help="address to try first, for example in a classroom")
    options = parser.parse_args(argv)
    if not hasattr(tarfile, "data_filter"):
        sys.exit("download.py: this Python cannot unpack archives safely; use 3.10.12, 3.11.4 or any newer one")
    try:
        get(options.dataset, options.data_root, options.from_archive, options.mirror)
    except (UserError, OSError) as error:  # OSError: the disk is full, or cannot be written
        sys.exit(f"download.py: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def dataset_table() -> str:
    """Return the description of all data sets for --help."""
    return "\n".join(
        f"  {name:<13}{data.title}\n{'':15}{data.size} download, to DATA_ROOT/{data.folder}\n{'':15}terms: {data.terms}"
        for name, data in DOWNLOADS.items()
    )


def get(name: str, root: Path, local: list[Path], mirror: str = "") -> None:
    """Unpack the data set `name` below `root`, from the archives in `local` or from a download.

    Raises:
        UserError: no address works, or a local file is not the official one.
        OSError: the disk is full or cannot be written.
    """
    data = DOWNLOADS[name]
    print(f"{name}: {data.title}. Terms: {data.terms}.")
    official = [archive.name for archive in data.archives]
    for path in local:
        if not path.exists():
            raise UserError(f"{path} is missing; give --from-archive the file that you fetched")
        if official and path.name not in official:
            raise UserError(f"--from-archive {path}: keep the official file name, {' or '.join(official)}")
    if data.page:
        return unpack_local(name, root, local)
    place = root / data.into
    place.mkdir(parents=True, exist_ok=True)
    for archive in data.archives:
        done = place / f".{archive.name}.done"  # written after the extraction
        if done.exists() and (root / data.folder).is_dir():
            print(f"{archive.name}: already there; delete {done} to unpack it again")
            continue
        given = next((path for path in local if path.name == archive.name), None)
        if given and (problem := flaw(given, archive)):
            raise UserError(f"{given} is not the official file: {problem}")
        path = given or fetch(archive, place, name, mirror)
        extract(path, place)
        done.touch()
        if not given:
            path.unlink()  # it would double the disk space
    print(f"{name} is in {root / data.folder}")


def unpack_local(name: str, root: Path, local: list[Path]) -> None:
    """Copy the data set `name`, which only a browser can fetch, below `root` from the archive or folder in `local`.

    Raises:
        UserError: `local` is empty (the message says what to fetch), or does not contain the set.
    """
    data = DOWNLOADS[name]
    place, staging = root / data.folder, root / f".{data.folder}.unpacking"
    if all((place / marker).is_file() for marker in data.markers):
        return print(f"{name} is in {place} already")
    if len(local) != 1:
        raise UserError(
            f"only a browser can fetch {name}; open {data.page}, download it, and run\n"
            f"  python download.py {name} --from-archive path/to/the/download    (a zip, a tar or a folder)"
        )
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "set").mkdir(parents=True)
    try:
        if not (given := local[0]).is_dir():
            extract(given, given := staging / "archive")
        found = next((path.parent for path in sorted(given.rglob(data.markers[0]))), given)
        if missing := [marker for marker in data.markers if not (found / marker).is_file()]:
            raise UserError(f"{local[0]} contains no {missing[0]}; give the archive or folder of {name}")
        for path in tqdm([path for path in found.iterdir() if path.is_file()], desc=name, unit=" files"):
            shutil.copy(path, staging / "set")
        if place.is_dir():
            place.rmdir()  # raises unless it is empty
        os.replace(staging / "set", place)  # complete or absent
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(f"{name} is in {place}")


def fetch(archive: Archive, folder: Path, name: str, mirror: str = "") -> Path:
    """Download the archive to `folder` from the first address that works and return its path; continue a partial file.

    Args:
        name: of the data set, for the error message.

    Raises:
        UserError: no address works; the message says what to fetch by hand.
    """
    path, partial, reasons = folder / archive.name, folder / f"{archive.name}.part", []
    if path.exists() and not flaw(path, archive):
        return path
    urls = [f"{host}/{archive.path}" for host in archive.hosts]
    for url in ([f"{mirror.rstrip('/')}/{archive.name}"] if mirror else []) + urls:
        try:
            download(url, partial)
            if not (problem := flaw(partial, archive)):
                os.replace(partial, path)
                return path
            partial.unlink()
            reasons.append(f"  {url}: this is not the official file ({problem})")
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: not a URL
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            reasons.append(f"  {url}: {getattr(error, 'reason', None) or error}")
    checksum = f" (md5 {archive.md5})" if archive.md5 else ""
    raise UserError(
        f"no address of {archive.name} works:\n" + "\n".join(reasons) + "\n"
        f"Run the command again to continue, or fetch the file or a copy of it{checksum} by hand and run\n"
        f"  python download.py {name} --from-archive path/to/{archive.name}"
    )


def download(url: str, partial: Path) -> None:
    """Download `url` to `partial` with a progress bar; continue an earlier attempt.

    Raises:
        OSError: the address does not answer, or the download stalls or ends early. (URLError is an OSError.)
    """
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "download.py"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # no more bytes: `flaw` decides whether the partial file is complete
            return
        raise
    with response:
        if response.status != 206:  # the server starts from the beginning
            have = 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        with (
            open(partial, "ab" if have else "wb") as file,
            tqdm.wrapattr(file, "write", total, initial=have, desc=partial.stem) as bar,
        ):
            shutil.copyfileobj(response, bar)
    if total and partial.stat().st_size < total:
        raise ConnectionError(f"ended after {partial.stat().st_size} of {total} bytes")


def flaw(path: Path, archive: Archive) -> str:
    """Return the difference of the file at `path` from the official `archive`, or "" if there is none."""
    if archive.md5:
        md5 = hashlib.md5()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                md5.update(block)
        return "" if md5.hexdigest() == archive.md5 else f"its md5 sum differs from {archive.md5}"
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            return f"{damaged} in it is damaged" if damaged else ""
    except Exception as error:  # zipfile raises many kinds of errors
        return f"it is incomplete or damaged: {error}"


def extract(archive: Path, root: Path) -> None:
    """Unpack `archive` (tar, tar.gz or zip) into `root`.

    All files are unpacked to a temporary folder first, and moved when all are complete.

    Raises:
        UserError: the archive is damaged, or contains a path outside `root`.
    """
    staging = root / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for member in tqdm(file.infolist(), desc=f"unpacking {archive.name}", unit=" files"):
                    file.extract(member, staging)  # removes ".." and drives from the path
        else:
            with tarfile.open(archive) as file:
                for member in tqdm(file, desc=f"unpacking {archive.name}", unit=" files"):
                    file.extract(member, staging, filter="data")  # refuses paths and links that lead outside
        for path in sorted(staging.rglob("*")):
            place = root / path.relative_to(staging)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                os.replace(path, place)
    except Exception as error:  # damaged archives raise many kinds of errors
        if getattr(error, "errno", None) in DISK_ERRORS:
            raise
        reason = "neither a zip nor a tar" if "\n" in str(error) else str(error) or type(error).__name__
        raise UserError(f"{archive} is damaged ({reason}); replace it by a complete one and run this again") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


if __name__ == "__main__":
    main()
