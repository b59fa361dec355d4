"""download.py against a real HTTP server on this machine, with small archives in VOC's layout."""

import hashlib
import http.server
import io
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import one_sentence, python, started, write_ade20k, write_pets, write_voc

import download
from common.datasets import load
from common.errors import UserError
from download import Archive, Dataset, extract, fetch, get, md5


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the bytes in `server.files`, with Range; `server.cut` breaks answers off after so many bytes."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + server.cut] if server.cut else body[start:])
        server.cut = 0

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A running HTTP server with attributes files, requests, ranges and cut; `server.url` is its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.ranges, server.cut = {}, [], True, 0
        server.handle_error = lambda *_: None  # a client that gave up is no news
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tar_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(folder, "VOCdevkit")
    return buffer.getvalue()


def serve(server, body: bytes, name: str = "voc.tar") -> Archive:
    """Serve `body` at one of two addresses; the first is dead. Return its description."""
    server.files[f"/b/{name}"] = body
    path = Path("checksum")
    path.write_bytes(body)
    return Archive((f"{server.url}/a/{name}", f"{server.url}/b/{name}"), md5(path))


@pytest.fixture
def voc(server, tmp_path, monkeypatch) -> Archive:
    """VOC 2007, small, as the data set "voc2007" of download.py."""
    write_voc(tmp_path / "made", {"train": 4, "val": 3, "test": 3}, side=32)
    archive = serve(server, tar_of(tmp_path / "made" / "VOCdevkit"))
    monkeypatch.setitem(download.DATASETS, "voc2007", Dataset("small", "1 kB", "none", "VOCdevkit/VOC2007", (archive,)))
    return archive


def test_a_data_set_is_fetched_from_the_address_that_works_unpacked_and_can_be_loaded(voc, server):
    download.main(["voc2007", "--data-root", "data"])
    assert [path for path, _ in server.requests] == ["/a/voc.tar", "/b/voc.tar"]
    sets = load("voc2007", 32, started(data_root="data"))
    assert [len(part) for part in sets] == [4, 3, 3]
    assert sorted(p.name for p in Path("data").iterdir()) == [".voc.tar.done", "VOCdevkit"]


def test_pets_are_unpacked_from_two_archives_into_their_folder(server, tmp_path, monkeypatch):
    made = write_pets(tmp_path / "made", 12, 3)
    archives = []
    for part in ("images", "annotations"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            file.add(made / part, part)
        archives.append(replace(serve(server, buffer.getvalue(), f"{part}.tar.gz"), into="oxford-iiit-pet"))
    dataset = replace(download.DATASETS["pets"], archives=tuple(archives))
    monkeypatch.setitem(download.DATASETS, "pets", dataset)
    download.main(["pets"])
    assert [len(part) for part in load("pets", 32, started())] == [11, 1, 3]
    assert [path.name for path in Path("data").iterdir()] == ["oxford-iiit-pet"]


def test_a_second_call_asks_nobody(voc, server, capsys):
    get("voc2007", Path("data"), [])
    server.requests.clear()
    get("voc2007", Path("data"), [])
    assert not server.requests and "already there" in capsys.readouterr().out


def test_data_that_was_deleted_is_fetched_again(voc, server):
    get("voc2007", Path("data"), [])
    shutil.rmtree("data/VOCdevkit")
    get("voc2007", Path("data"), [])
    assert Path("data/VOCdevkit/VOC2007/JPEGImages/000000.jpg").exists()


@pytest.mark.parametrize("ranges", [True, False], ids=["with Range", "without Range"])
def test_a_download_that_broke_off_is_continued(voc, server, ranges):
    server.ranges, server.cut = ranges, 1000
    with pytest.raises(UserError, match=r"broke off after 1000 of"):
        get("voc2007", Path("data"), [])
    assert Path("data/voc.tar.part").stat().st_size == 1000 and not Path("data/VOCdevkit").exists()
    get("voc2007", Path("data"), [])
    assert server.requests[-1] == ("/b/voc.tar", "bytes=1000-")
    assert Path("data/VOCdevkit/VOC2007/JPEGImages/000009.jpg").exists()


def test_a_partial_file_of_something_else_is_thrown_away(voc, server):
    Path("data").mkdir()
    for size in (500, 10_000_000):  # the second is longer than the archive: the server answers 416
        Path("data/voc.tar.part").write_bytes(b"x" * size)
        assert md5(fetch(voc, Path("data"))) == voc.md5
        Path("data/voc.tar").unlink()


def test_a_file_with_another_checksum_is_not_used(voc, server):
    server.files["/b/voc.tar"] = b"something else"
    with pytest.raises(UserError, match="md5 sum differs"):
        get("voc2007", Path("data"), [])
    assert [p.name for p in Path("data").iterdir()] == []


def test_when_every_address_fails_the_message_says_what_to_fetch_and_where_to_put_it(voc, server):
    server.files.clear()
    with pytest.raises(UserError) as error:
        get("voc2007", Path("data"), [])
    text = str(error.value)
    assert voc.urls[0] in text and voc.urls[1] in text and "Not Found" in text and voc.md5 in text
    assert "--from-archive" in text


def test_an_address_that_stalls_counts_as_dead(voc, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    released = threading.Event()
    original = Handler.do_GET

    def stall(self):
        released.wait(10)
        original(self)

    monkeypatch.setattr(Handler, "do_GET", stall)
    with pytest.raises(UserError, match="timed out"):
        get("voc2007", Path("data"), [])
    released.set()


def test_a_mirror_is_asked_first(voc, server):
    server.files["/classroom/voc.tar"] = server.files["/b/voc.tar"]
    download.main(["voc2007", "--data-root", "data", "--mirror", f"{server.url}/classroom/"])
    assert [path for path, _ in server.requests] == ["/classroom/voc.tar"]


def test_an_archive_fetched_by_hand_is_used_and_kept(voc, server, tmp_path):
    path = tmp_path / "voc.tar"
    path.write_bytes(server.files["/b/voc.tar"])
    get("voc2007", Path("data"), [path])
    assert not server.requests and path.exists() and Path("data/VOCdevkit/VOC2007").is_dir()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.tar", b"", "keep the official file name"),
        ("voc.tar", b"junk", "is not the official file"),
        ("voc.tar", None, "is missing"),
    ],
)
def test_a_wrong_local_archive_is_refused(voc, tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        get("voc2007", Path("data"), [path])
    assert not Path("data/VOCdevkit").exists()


def test_an_interrupted_extraction_is_done_again(voc, server, monkeypatch):
    original, calls = download.os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 8:
            raise KeyboardInterrupt
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "replace", replace)
        with pytest.raises(SystemExit) as exit:
            download.main(["voc2007", "--data-root", "data"])
    assert exit.value.code == 130 and not Path("data/.voc.tar.done").exists()
    get("voc2007", Path("data"), [])
    assert len(list(Path("data/VOCdevkit/VOC2007/JPEGImages").iterdir())) == 10
    assert not list(Path("data").glob("*unpacking*"))


@pytest.fixture
def ade(server, tmp_path, monkeypatch) -> bytes:
    """ADE20K, small, as the data set "ade20k" of download.py; the zip without a published checksum is returned."""
    write_ade20k(tmp_path / "made", {"training": 20, "validation": 3})
    body = zip_of(tmp_path / "made")
    archive = Archive(serve(server, body, "ADE.zip").urls)
    monkeypatch.setitem(download.DATASETS, "ade20k", Dataset("", "1 kB", "none", "ADEChallengeData2016", (archive,)))
    return body


def zip_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return buffer.getvalue()


def test_a_zip_without_published_checksum_is_fetched_and_its_sha256_recorded(ade):
    download.main(["ade20k"])
    assert [len(part) for part in load("ade20k", 32, started())] == [18, 2, 3]
    digest = hashlib.sha256(ade).hexdigest()
    assert Path("data/ADE.zip.sha256").read_text() == f"{digest}  ADE.zip\n"
    assert {path.name for path in Path("data").iterdir()} == {
        *("ADEChallengeData2016", "ADE.zip.sha256", ".ADE.zip.done"),
    }


def test_a_zip_that_broke_off_is_continued(ade, server):
    server.cut = 5000
    with pytest.raises(UserError, match="broke off after 5000 of"):
        get("ade20k", Path("data"), [])
    get("ade20k", Path("data"), [])
    assert server.requests[-1] == ("/b/ADE.zip", "bytes=5000-")
    assert len(list(Path("data/ADEChallengeData2016/images/training").iterdir())) == 20


def test_a_part_of_another_zip_is_thrown_away(ade):
    Path("data").mkdir()
    Path("data/ADE.zip.part").write_bytes(bytes(4000))
    get("ade20k", Path("data"), [])
    assert len(list(Path("data/ADEChallengeData2016/images/training").iterdir())) == 20


def flipped(body: bytes) -> bytes:
    place = body.index(b"\xff\xd8\xff") + 200  # inside the first JPEG
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda body: body[:-3000],
            r"ADE\.zip is not the official file: it is cut short or damaged: File is not a zip",
        ),
        (flipped, r"is not the official file: ADEChallengeData2016/\S+ in it is damaged"),
        (lambda body: b"", "cut short or damaged"),
    ],
)
def test_a_zip_cut_short_or_damaged_is_refused_in_one_sentence(ade, server, tmp_path, damage, message):
    path = tmp_path / "ADE.zip"
    path.write_bytes(damage(ade))
    with pytest.raises(UserError, match=message) as error:
        get("ade20k", Path("data"), [path])
    assert "\n" not in str(error.value) and path.exists()
    assert not list(Path("data").iterdir())
    server.files["/b/ADE.zip"] = damage(ade)  # where the server says that this is all
    with pytest.raises(UserError, match="the file there is not the official one"):
        get("ade20k", Path("data"), [])
    assert not list(Path("data").iterdir())


def test_another_zip_than_the_first_one_is_refused(ade, tmp_path, server):
    get("ade20k", Path("data"), [])
    shutil.rmtree("data/ADEChallengeData2016")
    write_ade20k(tmp_path / "other", {"training": 19, "validation": 3})
    path = tmp_path / "ADE.zip"
    path.write_bytes(zip_of(tmp_path / "other"))
    with pytest.raises(UserError, match=r"ADE\.zip is not the archive whose SHA-256 is in data/ADE\.zip\.sha256"):
        get("ade20k", Path("data"), [path])
    get("ade20k", Path("data"), [])
    assert Path("data/ADEChallengeData2016").is_dir()


def test_the_test_images_of_ade20k_are_fetched_without_labels(server, tmp_path, monkeypatch):
    (tmp_path / "made/release_test/testing").mkdir(parents=True)
    (tmp_path / "made/release_test/testing/ADE_test_00000001.jpg").write_bytes(b"an image")
    archive = Archive(serve(server, zip_of(tmp_path / "made"), "release_test.zip").urls)
    official = download.DATASETS["ade20k-test"]
    assert [a.urls for a in official.archives] == [("http://data.csail.mit.edu/places/ADEchallenge/release_test.zip",)]
    monkeypatch.setitem(download.DATASETS, "ade20k-test", replace(official, archives=(archive,)))
    download.main(["ade20k-test"])
    assert [path.name for path in Path("data/release_test/testing").iterdir()] == ["ADE_test_00000001.jpg"]


def escaping_tar(kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        member = tarfile.TarInfo({"path": "../escaped.txt", "absolute": "/tmp/escaped.txt"}.get(kind, "link"))
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "../../escaped"
            file.addfile(member)
            member = tarfile.TarInfo("link/file.txt")
        member.size = 4
        file.addfile(member, io.BytesIO(b"evil"))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["path", "link"])
def test_nothing_is_written_outside_the_folder(tmp_path, kind):
    root = tmp_path / "inner" / "data"
    root.mkdir(parents=True)
    (root / "evil.tar").write_bytes(escaping_tar(kind))
    with pytest.raises(UserError, match="outside its folder"):
        extract(root / "evil.tar", root)
    with zipfile.ZipFile(root / "evil.zip", "w") as file:
        file.writestr("../escaped.txt", "evil")
    with pytest.raises(UserError, match="outside its folder"):
        extract(root / "evil.zip", root)
    assert not list(tmp_path.rglob("escaped*")) and not (tmp_path / "escaped").exists()
    assert sorted(p.name for p in root.iterdir()) == ["evil.tar", "evil.zip"]


@pytest.mark.parametrize("name", ["short.tar", "short.zip"])
def test_a_damaged_archive_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        extract(tmp_path / name, tmp_path)


def test_help_lists_every_set_with_size_terms_and_place():
    text = python("download.py", "--help").stdout
    for name, data in download.DATASETS.items():
        assert name in text and data.size in text and data.terms in text and data.folder in text


def test_an_unreachable_network_ends_in_one_message():
    result = python("download.py", "voc2012", "--mirror", "http://127.0.0.1:9", timeout=200)
    assert "--from-archive path/to/VOCtrainval_11-May-2012.tar" in one_sentence(result)
    assert result.returncode == 1


def test_addresses_and_checksums_are_those_of_torchvision():
    from torchvision.datasets import OxfordIIITPet
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    theirs = {year["url"]: year["md5"] for year in DATASET_YEAR_DICT.values()} | dict(OxfordIIITPet._RESOURCES)
    ours = [archive for name in ("voc2007", "voc2012", "pets") for archive in download.DATASETS[name].archives]
    for archive in ours:
        known = [theirs[url] for url in archive.urls if url in theirs]  # one of the hosts, depending on its version
        assert known == [archive.md5]
