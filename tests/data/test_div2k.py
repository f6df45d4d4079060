"""Finding and fetching DIV2K, from a local server that can also misbehave."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from pcsr_lightning.data import DIV2KDataModule
from pcsr_lightning.data.div2k import TRAIN, VALID, Archive, fetch
from pcsr_lightning.errors import DataError


class Server(BaseHTTPRequestHandler):
    """Serves `files`; sends only `at_most` bytes of a body it has announced in full."""

    files: ClassVar[dict[str, bytes]] = {}
    at_most: ClassVar[int | None] = None
    ranges: ClassVar[bool] = True
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        body = self.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: self.at_most])

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "files", {})
    monkeypatch.setattr(Server, "asked", [])
    monkeypatch.setattr(Server, "at_most", None)
    monkeypatch.setattr(Server, "ranges", True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/DIV2K"
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(archive: Archive, extra: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    generator = np.random.default_rng(archive.first)
    with zipfile.ZipFile(out, "w") as file:
        for number in range(archive.first, archive.last + 1):
            png = io.BytesIO()
            pixels = generator.integers(0, 256, (128, 140, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(png, "png")
            file.writestr(f"{archive.name}/{number:04d}.png", png.getvalue())
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return out.getvalue()


def serve(archive: Archive, body: bytes) -> Archive:
    Server.files[f"/DIV2K/{archive.name}.zip"] = body
    return replace(archive, md5=hashlib.md5(body).hexdigest())


@pytest.fixture
def small(url: str) -> tuple[Archive, Archive]:
    """Both archives as served, with two pictures and one."""
    train, valid = replace(TRAIN, last=2), replace(VALID, last=801)
    return serve(train, zipped(train)), serve(valid, zipped(valid))


@pytest.fixture
def module(small: tuple[Archive, Archive], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DIV2KDataModule, "train_archive", small[0])
    monkeypatch.setattr(DIV2KDataModule, "valid_archive", small[1])


def test_the_official_archives() -> None:
    assert (TRAIN.first, TRAIN.last, VALID.first, VALID.last) == (1, 800, 801, 900)
    assert TRAIN.md5 == "bdc2d9338d4e574fe81bf7d158758658"
    assert VALID.md5 == "9fcdda83005c5e5997799b69f955ff88"


def test_fetches_verifies_and_trains(url: str, module: None, tmp_path: Path) -> None:
    root = tmp_path / "new" / "DIV2K"
    data = DIV2KDataModule(root, download=True, url=url, cache_dir=tmp_path / "caches")
    data.prepare_data()
    data.setup("fit")
    assert data.split is not None
    assert len(data.split.index) == 2
    assert len(data.val_dataloader()) == 1
    assert sorted(path.name for path in root.iterdir()) == ["DIV2K_train_HR", "DIV2K_valid_HR"]
    asked = len(Server.asked)
    again = DIV2KDataModule(root, download=True, url=url, cache_dir=tmp_path / "caches")
    again.prepare_data()
    assert len(Server.asked) == asked  # what is there is not fetched again


def test_an_own_validation_folder_spares_half_the_download(
    url: str, module: None, tmp_path: Path, folder: Path
) -> None:
    root = tmp_path / "DIV2K"
    DIV2KDataModule(
        root, download=True, url=url, val_root=folder, cache_dir=tmp_path / "caches"
    ).prepare_data()
    assert [path.name for path in root.iterdir()] == ["DIV2K_train_HR"]


@pytest.mark.parametrize("place", ["", "DIV2K", "DIV2K_train_HR", "DIV2K_valid_HR"])
def test_finds_it_where_it_may_lie(
    small: tuple[Archive, Archive], url: str, tmp_path: Path, place: str
) -> None:
    base = tmp_path / "DIV2K" if place == "DIV2K" else tmp_path
    for archive in small:
        fetch(archive, url, base)
    root = tmp_path / place if place.startswith("DIV2K_") else tmp_path
    assert small[0].find(root) == base / "DIV2K_train_HR"
    assert small[1].find(root) == base / "DIV2K_valid_HR"


def test_a_sibling_of_any_other_folder_is_not_taken(
    small: tuple[Archive, Archive], url: str, tmp_path: Path
) -> None:
    fetch(small[0], url, tmp_path)
    assert small[0].find(tmp_path / "other") is None


def test_goes_on_where_it_was_cut_off(
    small: tuple[Archive, Archive], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "at_most", 1000)
    with pytest.raises(DataError, match=r"cannot be fetched \(cut off after 1000 of \d+ bytes\)"):
        fetch(small[0], url, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["DIV2K_train_HR.zip.part"]
    monkeypatch.setattr(Server, "at_most", None)
    fetch(small[0], url, tmp_path)
    assert [wanted for _, wanted in Server.asked] == [None, "bytes=1000-"]
    assert small[0].missing(tmp_path / "DIV2K_train_HR") == []


@pytest.mark.parametrize("whole", [False, True])
def test_a_part_that_is_whole_or_that_the_server_cannot_continue(
    small: tuple[Archive, Archive],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,
) -> None:
    body = Server.files["/DIV2K/DIV2K_train_HR.zip"]
    (tmp_path / "DIV2K_train_HR.zip.part").write_bytes(body if whole else b"x" * 500)
    monkeypatch.setattr(Server, "ranges", whole)
    fetch(small[0], url, tmp_path)
    assert small[0].missing(tmp_path / "DIV2K_train_HR") == []


def test_a_wrong_checksum_is_an_error(
    small: tuple[Archive, Archive], url: str, tmp_path: Path
) -> None:
    wrong = replace(small[0], md5="0" * 32)
    with pytest.raises(DataError, match=rf"wrong checksum \(md5 {small[0].md5}, expected 000"):
        fetch(wrong, url, tmp_path)
    assert list(tmp_path.iterdir()) == []  # so that the next try starts over


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "DIV2K_train_HR/../../evil.png"])
def test_a_zip_file_cannot_write_elsewhere(url: str, tmp_path: Path, name: str) -> None:
    small = replace(TRAIN, last=1)
    archive = serve(small, zipped(small, {name: b"evil"}))
    root = tmp_path / "a" / "b"
    with pytest.raises(DataError, match=r"refused to unpack, '.*evil\.png' would be written"):
        fetch(archive, url, root)
    assert not list(tmp_path.rglob("evil.png"))
    assert [path.name for path in root.iterdir()] == ["DIV2K_train_HR.zip.part"]


@pytest.mark.parametrize("kind", ["no zip", "no folder"])
def test_a_file_that_is_no_such_zip_is_an_error(url: str, tmp_path: Path, kind: str) -> None:
    body = b"no zip" if kind == "no zip" else zipped(replace(TRAIN, first=1, last=0))
    archive = serve(replace(TRAIN, last=1), body)
    with pytest.raises(DataError, match="not a zip file with a folder DIV2K_train_HR"):
        fetch(archive, url, tmp_path)
    assert not (tmp_path / "DIV2K_train_HR").exists()


def test_no_such_address_and_no_connection(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"HR\.zip: cannot be fetched \(Not Found\).*data\.root="):
        fetch(TRAIN, url, tmp_path)
    with pytest.raises(DataError, match=r"cannot be fetched \(.*refused\)\. Check the connection"):
        fetch(TRAIN, "http://127.0.0.1:1", tmp_path)


def test_a_folder_that_cannot_be_written(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write here \(.*8 GB of room with data\.root="):
        fetch(TRAIN, url, tmp_path / "file")


def test_missing_without_download(tmp_path: Path) -> None:
    message = r"DIV2K_train_HR is not here.*data\.root=DIR.*data\.download=true \(about 4 GB"
    with pytest.raises(DataError, match=message):
        DIV2KDataModule(tmp_path / "nowhere").prepare_data()


def test_an_incomplete_folder_is_an_error(url: str, module: None, tmp_path: Path) -> None:
    data = DIV2KDataModule(tmp_path, download=True, url=url, cache_dir=tmp_path / "caches")
    data.prepare_data()
    (tmp_path / "DIV2K_train_HR" / "0002.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of DIV2K's 2 pictures \(0002\.png\)"):
        data.prepare_data()
