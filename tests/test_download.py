"""download.py against a real, if need be hostile HTTP server on this machine, with small archives in VOC's layout."""

import hashlib
import io
import shutil
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Handler, one_sentence, python, started, tar_of, write_ade20k, write_drinks, write_pets, write_voc

import download
from common.datasets import load
from common.errors import UserError
from download import Archive, Dataset, extract, fetch, get, md5


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


@pytest.mark.parametrize("ranges", [400, 403, 416, 500, 501, "lies"])
def test_a_server_that_mishandles_range_costs_a_second_request_and_nothing_else(voc, server, ranges):
    server.cut = 1000
    with pytest.raises(UserError, match="broke off after 1000 of"):
        get("voc2007", Path("data"), [])
    server.ranges = ranges
    get("voc2007", Path("data"), [])
    assert server.requests[-2:] == [("/b/voc.tar", "bytes=1000-"), ("/b/voc.tar", None)]
    assert len(list(Path("data/VOCdevkit/VOC2007/JPEGImages").iterdir())) == 10


@pytest.mark.parametrize("name", ["voc2007", "ade20k"])
def test_a_file_that_changes_between_two_parts_is_fetched_anew(voc, ade, server, name):
    path = {"voc2007": "/b/voc.tar", "ade20k": "/b/ADE.zip"}[name]
    official = server.files[path]
    server.files[path], server.cut = bytes(byte ^ 1 for byte in official[:5000]) + official[5000:], 4000
    with pytest.raises(UserError, match="broke off after 4000 of"):
        get(name, Path("data"), [])
    server.files[path] = official
    get(name, Path("data"), [])
    assert server.requests[-2:] == [(path, "bytes=4000-"), (path, None)]
    assert len(list(Path("data").rglob({"voc2007": "0*.jpg", "ade20k": "ADE*.jpg"}[name]))) in (10, 23)


def test_a_server_that_stalls_half_way_counts_as_dead_and_what_came_is_kept(voc, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    server.stalls, server.cut = threading.Event(), 1000
    with pytest.raises(UserError, match="timed out"):
        get("voc2007", Path("data"), [])
    server.stalls.set()
    assert Path("data/voc.tar.part").read_bytes() == server.files["/b/voc.tar"][:1000]
    get("voc2007", Path("data"), [])
    assert server.requests[-1] == ("/b/voc.tar", "bytes=1000-")


@pytest.mark.parametrize("answer", [500, 503, b"", b"<html>sign in first</html>", "file:///etc/passwd", "/a/voc.tar"])
def test_an_address_with_something_else_is_passed_over_for_the_next(voc, server, answer):
    server.files["/a/voc.tar"] = answer  # the last of them leads to itself
    get("voc2007", Path("data"), [])
    assert len(list(Path("data/VOCdevkit/VOC2007/JPEGImages").iterdir())) == 10
    del server.files["/b/voc.tar"]
    with pytest.raises(UserError, match=r"no address of voc\.tar works") as error:
        get("voc2007", Path("other"), [])
    assert str(error.value).count("voc.tar: ") == 2 and "root:" not in str(error.value)


@pytest.mark.parametrize("length", ["many", "-1", "1000"])
def test_a_server_that_is_wrong_about_the_length_is_no_harm(voc, server, length):
    server.length = length
    try:
        get("voc2007", Path("data"), [])
    except UserError as error:
        assert "no address of voc.tar works" in str(error)
        assert not Path("data/VOCdevkit").exists()
    else:
        assert length == "-1"
        assert len(list(Path("data/VOCdevkit/VOC2007/JPEGImages").iterdir())) == 10


def test_an_address_that_announces_too_much_does_not_keep_the_others_from_being_asked(voc, server, monkeypatch):
    official = Handler.send_header
    server.files["/a/voc.tar"] = b"x"

    def lie(self, key, value):
        official(self, key, str(10**15) if key == "Content-Length" and self.path in lying else value)

    monkeypatch.setattr(Handler, "send_header", lie)
    lying = ["/a/voc.tar"]
    get("voc2007", Path("data"), [])
    lying.append("/b/voc.tar")
    with pytest.raises(UserError, match="announces 953674316 MiB, which no data set has"):
        get("voc2007", Path("other"), [])
    monkeypatch.setattr(download, "LARGEST", 10**16)
    with pytest.raises(UserError, match=r"^voc\.tar needs 953674316 MiB more, but other has \d+ MiB$"):
        get("voc2007", Path("other"), [])
    lying.remove("/b/voc.tar")
    get("voc2007", Path("other"), [])


def test_a_body_that_does_not_end_is_given_up_and_thrown_away(voc, server, monkeypatch):
    def endless(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(1 << 20))

    monkeypatch.setattr(download, "LARGEST", 1 << 24)
    monkeypatch.setattr(Handler, "do_GET", endless)
    with pytest.raises(UserError, match="sends more than any data set has"):
        get("voc2007", Path("data"), [])
    assert not list(Path("data").rglob("*"))


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_server_that_drips_counts_as_dead(voc, server, monkeypatch, where):
    over = threading.Event()

    def drip(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if where == "body" else b""))
        for _ in range(100):
            if not over.wait(0.05):
                self.wfile.write(b"x")

    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    monkeypatch.setattr(Handler, "do_GET", drip)
    with pytest.raises(UserError, match="timed out: it sends less than" if where == "body" else "headers do not end"):
        get("voc2007", Path("data"), [])
    over.set()


def test_of_two_downloads_at_a_time_the_second_waits_and_finds_the_set(voc, server, capsys):
    server.stalls, server.cut = threading.Event(), 1000  # the first gets no further, for now
    server.files["/a/voc.tar"] = server.files["/b/voc.tar"]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(get, "voc2007", Path("data"), []) for _ in range(2)]
        for _ in range(100):
            if waited := "waiting for another process" in capsys.readouterr().err:
                break
            time.sleep(0.05)
        server.stalls.set()
        for one in both:
            one.result()
    assert waited and len(list(Path("data/VOCdevkit/VOC2007/JPEGImages").iterdir())) == 10
    assert [path for path, _ in server.requests] == ["/a/voc.tar", "/b/voc.tar"]  # the first went on at the other host


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


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_drinks_that_were_fetched_by_hand_are_taken_from_an_archive_or_a_folder(tmp_path, kind):
    write_drinks(tmp_path / "fetched" / "in a folder")
    given = tmp_path / "fetched"
    if kind != "folder":
        given = Path(shutil.make_archive(tmp_path / "dataset", kind, tmp_path / "fetched"))
    (tmp_path / "data" / "drinks").mkdir(parents=True)  # an empty one is in nobody's way
    get("drinks", tmp_path / "data", [given])
    assert len(load("drinks", 32, started(data_root=tmp_path / "data"))[2]) == 4
    assert given.exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["drinks"]
    get("drinks", tmp_path / "data", [])  # there already


def test_who_has_no_drinks_is_told_where_a_browser_fetches_them(tmp_path):
    done = python("download.py", "drinks", "--data-root", tmp_path / "data")
    assert done.returncode == 1
    assert "open https://drive.google.com/" in done.stderr
    assert "--from-archive" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_what_holds_no_drinks_is_refused_and_nothing_is_left_behind(tmp_path):
    empty, other = tmp_path / "empty", tmp_path / "data" / "drinks" / "notes.txt"
    empty.mkdir()
    with pytest.raises(UserError, match=r"empty holds no segmentation_train\.json"):
        get("drinks", tmp_path / "data", [empty])
    assert list((tmp_path / "data").glob("**/*")) == []
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(UserError, match="drinks holds something else; move it away"):
        get("drinks", tmp_path / "data", [write_drinks(tmp_path / "given")])
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["drinks", "notes.txt"]


def test_a_folder_is_not_copied_into_itself_and_half_a_set_is_none(tmp_path, monkeypatch):
    write_drinks(tmp_path / "fetched")
    monkeypatch.chdir(tmp_path)
    Path("data/other").mkdir(parents=True)
    shutil.move("fetched/drinks", "drinks files")
    get("drinks", Path("data"), [Path()])
    assert len(list(Path("data/drinks").iterdir())) == 26 and not list(Path("data").rglob(".*"))
    shutil.rmtree("data/drinks")
    Path("drinks files/segmentation_test.json").unlink()
    with pytest.raises(UserError, match=r"drinks files holds no segmentation_test\.json; is it drinks\?"):
        get("drinks", Path("data"), [Path("drinks files")])


def test_a_sound_archive_of_something_else_is_refused_and_the_right_one_then_taken(ade, tmp_path):
    wrong = tmp_path / "wrong" / "ADE.zip"
    wrong.parent.mkdir()
    with zipfile.ZipFile(wrong, "w") as file:
        file.writestr("foo.txt", "nothing")
    with pytest.raises(UserError, match=r"holds no folder ADEChallengeData2016; is it the right file\?"):
        get("ade20k", tmp_path / "data", [wrong])
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
    get("ade20k", tmp_path / "data", [])


@pytest.mark.parametrize("kind", ["path", "link"])
def test_nothing_is_written_outside_the_folder(tmp_path, kind):
    root = tmp_path / "inner" / "data"
    root.mkdir(parents=True)
    (root / "evil.tar").write_bytes(escaping_tar(kind))
    with pytest.raises(UserError, match=r"outside its folder|a link or a device"):
        extract(root / "evil.tar", root)
    with zipfile.ZipFile(root / "evil.zip", "w") as file:
        file.writestr("../escaped.txt", "evil")
    with pytest.raises(UserError, match="outside its folder"):
        extract(root / "evil.zip", root)
    assert not list(tmp_path.rglob("escaped*")) and not (tmp_path / "escaped").exists()
    assert sorted(p.name for p in root.iterdir()) == ["evil.tar", "evil.zip"]


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "FIFOTYPE", "CHRTYPE"])
def test_a_tar_with_links_or_devices_is_refused_even_if_they_stay_inside(tmp_path, kind):
    with tarfile.open(tmp_path / "links.tar", "w") as file:
        file.addfile(tarfile.TarInfo("inside"))
        member = tarfile.TarInfo("link")
        member.type, member.linkname = getattr(tarfile, kind), "inside"
        file.addfile(member)
    with pytest.raises(UserError, match=r"links\.tar holds link, a link or a device"):
        extract(tmp_path / "links.tar", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cwd"] == ["links.tar"]


def test_a_link_in_a_zip_becomes_a_file_that_leads_nowhere(tmp_path):
    member = zipfile.ZipInfo("link")
    member.create_system, member.external_attr = 3, 0o120777 << 16  # made on Unix: a symbolic link
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as file:
        file.writestr(member, "/etc/passwd")
    extract(tmp_path / "links.zip", tmp_path)
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link").read_text() == "/etc/passwd"


@pytest.mark.parametrize("place", ["/tmp/escaped.txt", "a/../../escaped.txt", "..\\..\\escaped", "../data2/escaped"])
def test_a_zip_whose_files_have_paths_of_any_kind_stays_in_its_folder(tmp_path, place):
    root = tmp_path / "inner" / "data"
    root.mkdir(parents=True)
    with zipfile.ZipFile(root / "evil.zip", "w") as file:
        file.writestr(zipfile.ZipInfo(place), "evil")
    try:
        extract(root / "evil.zip", root)
    except UserError as error:
        assert "outside its folder" in str(error)
    assert {path for path in (tmp_path / "inner").rglob("*") if "escaped" in path.name} <= set(root.rglob("*"))
    assert not Path("/tmp/escaped.txt").exists()


@pytest.mark.parametrize(("place", "value"), [(6, 1), (8, 77)], ids=["encrypted", "compressed in an unknown way"])
def test_a_zip_that_python_cannot_read_is_named(tmp_path, place, value):
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as file:
        file.writestr("file", "content")
    body = bytearray((tmp_path / "odd.zip").read_bytes())
    for start in (place, body.index(b"PK\1\2") + place + 2):  # what is said of the file before it, and at the end
        body[start] = value
    (tmp_path / "odd.zip").write_bytes(body)
    with pytest.raises(UserError, match=r"odd\.zip is damaged") as error:
        extract(tmp_path / "odd.zip", tmp_path)
    assert "\n" not in str(error.value)


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
