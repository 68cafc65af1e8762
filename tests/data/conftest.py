"""Shards to damage, configurations to open them with, and two hubs that live on 127.0.0.1."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from mhcnb.config import load_config

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"


def shard_bytes(ids, header=True, dtype="<u2", magic=20240520, version=1, count=None) -> bytes:
    """A token file, byte by byte, independent of the code under test."""
    words = np.zeros(256, "<i4")
    words[:3] = magic, version, len(ids) if count is None else count
    return (words.tobytes() if header else b"") + np.asarray(ids).astype(dtype).tobytes()


@pytest.fixture
def shard():
    return shard_bytes


@pytest.fixture
def folder(tmp_path):
    """A sound data set: two training shards and one of validation, 50 tokens each of a vocabulary of 1000."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    root.mkdir()
    for name in ("x_train_000001.bin", "x_train_000002.bin", "x_val_000000.bin"):
        (root / name).write_bytes(shard_bytes(rng.integers(0, 1000, 50)))
    return root


@pytest.fixture
def config():
    """config(root, block_size=8, **overrides of data.*): the tiny preset on that data."""

    def make(root, block_size=8, vocab_size=1000, **data):
        overrides = {"model.block_size": block_size, "model.vocab_size": vocab_size, "data.root": str(root)}
        return load_config(TINY, overrides | {f"data.{key}": value for key, value in data.items()})

    return make


@pytest.fixture
def on_disk():
    """{path: (content, time of change)} of all files under a folder."""

    def look(root):
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(Path(root).rglob("*")) if p.is_file()}

    return look


class Hub:
    """Files of one data set, `o/n`, behind the part of a hub's protocol that its client uses.

    `cut` bytes into each file the first connection is closed; `wrong` names get other bytes than are listed.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.cut, self.wrong = files, None, set()
        self.asked: list[tuple[str, str | None]] = []  # (file or "tree", Range)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def json(self, request, value, status=200, headers=()):
        self.send(request, status, json.dumps(value).encode(), [("Content-Type", "application/json"), *headers])

    def send(self, request, status, body, headers):
        request.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def send_file(self, request, name, headers=()):
        """A file, or the range of it that was asked for; cut the first time."""
        body = self.files[name]
        if name in self.wrong:
            body = bytes(len(body))
        asked = request.headers.get("Range")
        if request.command == "GET":
            self.asked.append((name, asked))
        start = int(re.fullmatch(r"bytes=(\d+)-.*", asked).group(1)) if asked else 0
        extra = [("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")] if asked else []
        first = [n for n, _ in self.asked].count(name) == 1
        if not (self.cut and first and request.command == "GET"):
            return self.send(request, 206 if asked else 200, body[start:], [*headers, *extra])
        request.send_response(200)
        for key, value in [*headers, ("Content-Length", str(len(body)))]:
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body[: self.cut])
        request.wfile.flush()
        request.close_connection = True
        request.connection.shutdown(2)


class ModelScopeHub(Hub):
    """GET .../repo/tree lists, .../repo?FilePath= gives."""

    def answer(self, request):
        parts, query = urlsplit(request.path), parse_qs(urlsplit(request.path).query)
        if parts.path == "/api/v1/datasets/o/n/repo/tree":
            self.asked.append(("tree", None))
            files = [
                {"Path": n, "Name": n, "Size": len(b), "Type": "blob", "Sha256": hashlib.sha256(b).hexdigest()}
                for n, b in self.files.items()
            ]
            page = int(query.get("PageNumber", ["1"])[0])
            return self.json(request, {"Code": 200, "Data": {"Files": files if page == 1 else []}})
        if parts.path == "/api/v1/datasets/o/n/repo":
            return self.send_file(request, query["FilePath"][0])
        return self.json(request, {"Code": 404, "Message": "not found"}, 404)


class HuggingFaceHub(Hub):
    """GET /api/.../tree lists; HEAD and GET .../resolve give. Like the real one it does not check what it sends."""

    def answer(self, request):
        path = unquote(urlsplit(request.path).path)
        if path.startswith("/api/datasets/o/n/tree/main"):
            self.asked.append(("tree", None))
            return self.json(
                request,
                [
                    {"type": "file", "path": n, "size": len(b), "oid": "0" * 40}
                    | {"lfs": {"oid": hashlib.sha256(b).hexdigest(), "size": len(b), "pointerSize": 130}}
                    for n, b in self.files.items()
                ],
            )
        name = path.removeprefix("/datasets/o/n/resolve/main/")
        if name in self.files:
            etag = hashlib.sha256(self.files[name]).hexdigest()
            return self.send_file(request, name, [("ETag", f'"{etag}"'), ("X-Repo-Commit", "a" * 40)])
        return self.json(request, {"error": "Repository not found"}, 404, [("X-Error-Code", "RepoNotFound")])


@pytest.fixture
def hub_files():
    """What both hubs hold: two training shards of a megabyte, one of validation, and a page about them."""
    rng = np.random.default_rng(1)
    sizes = {"fineweb_train_000001.bin": 500_000, "fineweb_train_000002.bin": 500_000, "fineweb_val_000000.bin": 5000}
    shards = {name: shard_bytes(rng.integers(0, 50257, size)) for name, size in sizes.items()}
    return shards | {"README.md": b"# tokens"}


def _serve(kind, files, monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MODELSCOPE_CACHE", "HF_HOME", "MHCNB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    hub = kind(dict(files))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return hub


@pytest.fixture
def modelscope(hub_files, monkeypatch, tmp_path):
    """The client's waiting between attempts is cut short, and what it remembers of another test's server forgotten."""
    client = pytest.importorskip("modelscope_hub._download")
    monkeypatch.setattr(client, "DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.01, raising=False)
    monkeypatch.setattr(client, "DOWNLOAD_RETRY_TIMES", 2, raising=False)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1, raising=False)
    monkeypatch.setattr("modelscope_hub.config._default_config", None, raising=False)
    hub = _serve(ModelScopeHub, hub_files, monkeypatch, tmp_path)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def huggingface(hub_files, monkeypatch, tmp_path):
    """The client writes, and so resumes, by pieces of 64 kB here: 10 MB are its habit."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub = _serve(HuggingFaceHub, hub_files, monkeypatch, tmp_path)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
