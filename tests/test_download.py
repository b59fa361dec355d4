"""download.py against a real HTTP server on this machine, with small archives in the official layouts."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import one_sentence, python, started, tar_of, write_ade20k, write_drinks, write_pets, write_voc

import download
from common.datasets import load
from common.system.errors import UserError
from download import Archive, Dataset, extract, get

IMAGES = Path("data/VOCdevkit/VOC2007/JPEGImages")


def serve(server, body: bytes, name: str) -> Archive:
    """Serve `body` at the second of two addresses; the first is dead. Return its description."""
    server.files[f"/b/{name}"] = body
    return Archive((f"{server.url}/a", f"{server.url}/b"), name, hashlib.md5(body).hexdigest())


@pytest.fixture
def voc(server, tmp_path, monkeypatch) -> Archive:
    """VOC 2007, small, as the data set "voc2007" of download.py."""
    write_voc(tmp_path / "made", {"train": 4, "val": 3, "test": 3}, side=32)
    archive = serve(server, tar_of(tmp_path / "made" / "VOCdevkit"), "voc.tar")
    monkeypatch.setitem(download.DOWNLOADS, "voc2007", Dataset("", "1 kB", "", "VOCdevkit/VOC2007", (archive,)))
    return archive


def test_a_data_set_is_fetched_from_the_address_that_works_once_unpacked_and_can_be_loaded(voc, server, capsys):
    download.main(["voc2007", "--data-root", "data"])
    assert [path for path, _ in server.requests] == ["/a/voc.tar", "/b/voc.tar"]
    assert "voc.tar: 100%" in (bar := capsys.readouterr().err) and "B/s]" in bar
    assert [len(part) for part in load("voc2007", 32, started(data_root="data"))] == [4, 3, 3]
    assert sorted(path.name for path in Path("data").iterdir()) == [".voc.tar.done", "VOCdevkit"]
    get("voc2007", Path("data"), [])
    assert len(server.requests) == 2 and "already there" in capsys.readouterr().out


def test_pets_are_unpacked_from_two_archives_into_their_folder(server, tmp_path, monkeypatch):
    made = write_pets(tmp_path / "made", 12, 3)
    archives = []
    for part in ("images", "annotations"):
        body = Path(shutil.make_archive(part, "gztar", made, part)).read_bytes()
        archives.append(serve(server, body, f"{part}.tar.gz"))
    dataset = replace(download.DOWNLOADS["pets"], archives=tuple(archives))
    monkeypatch.setitem(download.DOWNLOADS, "pets", dataset)
    download.main(["pets"])
    assert [len(part) for part in load("pets", 32, started())] == [11, 1, 3]
    assert [path.name for path in Path("data").iterdir()] == ["oxford-iiit-pet"]


@pytest.mark.parametrize("ranges", [True, False], ids=["with Range", "without Range"])
def test_a_download_that_broke_off_is_continued(voc, server, ranges):
    server.ranges, server.cut = ranges, 1000
    with pytest.raises(UserError, match=r"ended after 1000 of \d+ bytes\nRun the command again to continue"):
        get("voc2007", Path("data"), [])
    assert Path("data/voc.tar.part").stat().st_size == 1000 and not Path("data/VOCdevkit").exists()
    get("voc2007", Path("data"), [])
    assert server.requests[-1] == ("/b/voc.tar", "bytes=1000-")
    assert len(list(IMAGES.iterdir())) == 10


def test_when_every_address_fails_the_message_says_what_to_fetch_and_where_to_put_it(voc, server):
    server.files = {"/b/voc.tar": b"something else"}
    with pytest.raises(UserError, match=r"no address of voc\.tar works") as error:
        get("voc2007", Path("data"), [], mirror="forgotten")
    text = str(error.value)
    assert "/a/voc.tar: Not Found" in text and "/b/voc.tar: this is not the official file" in text
    assert voc.md5 in text and "--from-archive path/to/voc.tar" in text and "unknown url type" in text
    assert not list(Path("data").iterdir())


def test_a_mirror_is_asked_first(voc, server):
    server.files["/classroom/voc.tar"] = server.files["/b/voc.tar"]
    download.main(["voc2007", "--data-root", "data", "--mirror", f"{server.url}/classroom/"])
    assert [path for path, _ in server.requests] == ["/classroom/voc.tar"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_ends_in_a_sentence_and_no_other_address_is_asked(voc, server):
    server.files["/a/voc.tar"] = server.files["/b/voc.tar"]
    Path("data").mkdir()
    Path("data/voc.tar.part").symlink_to("/dev/full")
    with pytest.raises(SystemExit, match=r"^download\.py: .*No space left on device$"):
        download.main(["voc2007"])
    assert len(server.requests) == 1


def test_an_archive_fetched_by_hand_is_used_and_kept(voc, server):
    Path("voc.tar").write_bytes(server.files["/b/voc.tar"])
    get("voc2007", Path("data"), [Path("voc.tar")])
    assert not server.requests and Path("voc.tar").exists() and len(list(IMAGES.iterdir())) == 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.tar", b"", r"keep the official file name, voc\.tar"),
        ("voc.tar", b"junk", "is not the official file"),
        ("gone.tar", None, "is missing"),
    ],
)
def test_a_wrong_local_archive_is_refused(voc, name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        get("voc2007", Path("data"), [Path(name)])
    assert not Path("data/VOCdevkit").exists()


def test_a_zip_without_a_published_checksum_is_fetched_unless_its_own_checksums_fail(server, tmp_path, monkeypatch):
    write_ade20k(tmp_path / "made", {"training": 20, "validation": 3})
    body = Path(shutil.make_archive(tmp_path / "zipped", "zip", tmp_path / "made")).read_bytes()
    archive = replace(serve(server, body, "ADE.zip"), md5="")
    monkeypatch.setitem(download.DOWNLOADS, "ade20k", Dataset("", "1 kB", "none", "ADEChallengeData2016", (archive,)))
    place = body.index(b"ADE_train_00000001.jpg") + 200  # inside the first JPEG
    flipped = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    for damaged, message in ((body[:-3000], "incomplete or damaged: File is not a zip"), (flipped, "damaged")):
        server.files["/b/ADE.zip"] = damaged
        with pytest.raises(UserError, match=rf"this is not the official file \(.*{message}"):
            get("ade20k", Path("data"), [])
        assert not list(Path("data").iterdir())
    server.files["/b/ADE.zip"] = body
    download.main(["ade20k"])
    assert [len(part) for part in load("ade20k", 32, started())] == [18, 2, 3]
    assert sorted(path.name for path in Path("data").iterdir()) == [".ADE.zip.done", "ADEChallengeData2016"]


@pytest.mark.parametrize("name", ["short.zip", "cut.tar.gz"])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, name):
    whole = Path(shutil.make_archive(tmp_path / "whole", "gztar", write_drinks(tmp_path))).read_bytes()
    Path(name).write_bytes(whole[:-3000] if name == "cut.tar.gz" else b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match=rf"{name} is damaged \(.+\); replace it by a complete one") as error:
        extract(Path(name), Path())
    assert "\n" not in str(error.value) and [str(path) for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_drinks_that_were_fetched_by_hand_are_taken_from_an_archive_or_a_folder(tmp_path, kind):
    write_drinks(tmp_path / "fetched" / "in a folder")
    given = tmp_path / "fetched"
    if kind != "folder":
        given = Path(shutil.make_archive(tmp_path / "dataset", kind, tmp_path / "fetched"))
    Path("data/drinks").mkdir(parents=True)  # an empty one is in nobody's way
    get("drinks", Path("data"), [given])
    assert len(load("drinks", 32, started())[2]) == 4 and given.exists()
    assert [path.name for path in Path("data").iterdir()] == ["drinks"]
    get("drinks", Path("data"), [])  # there already


def test_who_has_no_drinks_is_told_where_a_browser_fetches_them(tmp_path):
    done = python("download.py", "drinks")
    assert "--from-archive" in one_sentence(done) and "open https://drive.google.com/" in done.stderr
    assert not Path("data").exists()
    half = write_drinks(tmp_path)
    (half / "segmentation_test.json").unlink()
    with pytest.raises(UserError, match=r"drinks contains no segmentation_test\.json; give the archive"):
        get("drinks", Path("data"), [half])
    assert not list(Path("data").iterdir())


def test_addresses_and_checksums_are_those_of_torchvision():
    from torchvision.datasets import OxfordIIITPet
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    theirs = {year["url"]: year["md5"] for year in DATASET_YEAR_DICT.values()} | dict(OxfordIIITPet._RESOURCES)
    for archive in [one for name in ("voc2007", "voc2012", "pets") for one in download.DOWNLOADS[name].archives]:
        urls = [f"{host}/{archive.path}" for host in archive.hosts]
        known = [theirs[url] for url in urls if url in theirs]  # one of the hosts, depending on its version
        assert known == [archive.md5]
