"""The script that fills the weights bucket, run for real against a small hub and an `aws` that writes to a directory.

Not proven: that Hugging Face answers like this hub, and that the AWS CLI treats an ended or killed stream like this
one.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.scripts import fill_bucket

REPOSITORY = "org/model"
COMMIT = "0123abcd"
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
SHARDED = {
    "config.json": b"{}",
    "tokenizer.json": b"[1]",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"read me",
    "modeling.py": b"raise SystemExit",
    "model.safetensors.index.json": INDEX.encode(),
    "model-00001-of-00002.safetensors": b"first" * 1000,
    "model-00002-of-00002.safetensors": b"second" * 1000,
    "consolidated.safetensors": b"the same weights again",
    "original/consolidated.00.pth": b"and again",
    "pytorch_model.bin": b"and again",
}
GGUF = {
    "model-Q4_K_M.gguf": b"four",
    "model-Q4_K_S.gguf": b"four, small",
    "model-Q8_0/model-Q8_0-00001-of-00002.gguf": b"eight, 1",
    "model-Q8_0/model-Q8_0-00002-of-00002.gguf": b"eight, 2",
    "lower.q5_k_m.gguf": b"five",
}

# Like `aws`, it makes an object when its input ends, and none when it is killed before.
AWS = f"""#!{sys.executable}
import json, os, pathlib, sys
root, words = pathlib.Path(os.environ["FAKE_BUCKETS"]), sys.argv[1:]
with open(root / "calls", "a") as calls:
    print(*words, file=calls)
if words[:2] == ["s3api", "list-objects-v2"]:
    bucket, prefix = words[words.index("--bucket") + 1], words[words.index("--prefix") + 1]
    files = [path for path in (root / bucket).rglob("*") if path.is_file()]
    keys = {{path.relative_to(root / bucket).as_posix(): path.stat().st_size for path in files}}
    found = [{{"Key": key, "Size": size}} for key, size in sorted(keys.items()) if key.startswith(prefix)]
    if found:
        print(json.dumps({{"Contents": found}}))
elif words[:3] == ["s3", "cp", "-"]:
    target = root / words[3].removeprefix("s3://")
    data = sys.stdin.buffer.read()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
else:
    sys.exit(f"unexpected: {{words}}")
"""


class FakeHub(ThreadingHTTPServer):
    """Serve one repository the way Hugging Face does: metadata here, large files behind a redirect to another host."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], large: int = 1000) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.large = files, large
        self.broken: dict[str, int] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.gated = False


class _Handler(BaseHTTPRequestHandler):
    @property
    def hub(self) -> FakeHub:
        assert isinstance(self.server, FakeHub)
        return self.server

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        self.hub.seen.append((host, self.path, self.headers.get("Authorization", "")))
        if self.path == f"/api/models/{REPOSITORY}/revision/main":
            self._answer(json.dumps({"sha": COMMIT}).encode())
        elif self.path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}?recursive=true"):
            self._tree()
        elif self.path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            self._file(self.path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/"), host)
        else:
            self.send_error(404)

    def _tree(self) -> None:
        """Two pages, as a long listing has."""
        entries = [self._entry(path, content) for path, content in self.hub.files.items()]
        half = len(entries) // 2
        if "cursor" in self.path:
            self._answer(json.dumps(entries[half:]).encode())
        else:
            link = f'<http://127.0.0.1:{self.hub.server_port}{self.path}&cursor=2>; rel="next"'
            self._answer(json.dumps(entries[:half]).encode(), Link=link)

    def _entry(self, path: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
        if len(content) >= self.hub.large:
            return entry | {"oid": "pointer", "lfs": {"oid": hashlib.sha256(content).hexdigest()}}
        return entry | {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}

    def _file(self, path: str, host: str) -> None:
        content = self.hub.files[path]
        if self.hub.gated:
            self.send_error(403)
        elif host == "127.0.0.1" and len(content) >= self.hub.large:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.hub.server_port}{self.path}")
            self.end_headers()
        elif self.hub.broken.get(path, 0) > 0:
            self.hub.broken[path] -= 1
            self._answer(b"x" * len(content))
        else:
            self._answer(content)

    def _answer(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the fake AWS CLI first on the path; its buckets are directories."""
    command = tmp_path / "bin" / "aws"
    command.parent.mkdir()
    command.write_text(AWS)
    command.chmod(0o755)
    root = tmp_path / "buckets"
    root.mkdir()
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BUCKETS", str(root))
    monkeypatch.setattr(fill_bucket, "PAUSE_S", 0)
    return root


@contextlib.contextmanager
def serving(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(fill_bucket, "HUB", f"http://127.0.0.1:{hub.server_port}")
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving(SHARDED, monkeypatch) as running:
        yield running


@pytest.fixture
def gguf_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving(GGUF, monkeypatch) as running:
        yield running


def fill(quantization: str = "", prefix: str = REPOSITORY, token: str = "") -> None:
    fill_bucket.fill(REPOSITORY, "weights", prefix, quantization, token)


def objects(buckets: Path) -> dict[str, bytes]:
    root = buckets / "weights"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def uploads(buckets: Path) -> list[str]:
    calls = (buckets / "calls").read_text().splitlines()
    return [call.split()[3].removeprefix("s3://weights/") for call in calls if call.startswith("s3 cp")]


@pytest.mark.usefixtures("hub")
def test_it_copies_what_vllm_loads_and_nothing_twice(buckets: Path) -> None:
    fill()
    wanted = {
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    copied = {key: content for key, content in objects(buckets).items() if not key.startswith(".filled/")}
    assert copied == {f"{REPOSITORY}/{path}": SHARDED[path] for path in wanted}


@pytest.mark.usefixtures("hub")
def test_the_marker_comes_last_and_names_the_commit(buckets: Path) -> None:
    fill()
    assert uploads(buckets)[-1] == f".filled/{REPOSITORY}.json"
    assert json.loads(objects(buckets)[f".filled/{REPOSITORY}.json"])["commit"] == COMMIT


def test_with_the_marker_there_it_asks_nobody_and_copies_nothing(buckets: Path, hub: FakeHub) -> None:
    fill()
    before, asked = uploads(buckets), len(hub.seen)
    fill()
    assert uploads(buckets) == before
    assert len(hub.seen) == asked


@pytest.mark.usefixtures("hub")
def test_an_interrupted_copy_goes_on_after_the_complete_files(buckets: Path) -> None:
    done = buckets / "weights" / REPOSITORY / "model-00001-of-00002.safetensors"
    done.parent.mkdir(parents=True)
    done.write_bytes(SHARDED[done.name])
    fill()
    assert f"{REPOSITORY}/{done.name}" not in uploads(buckets)
    assert f".filled/{REPOSITORY}.json" in objects(buckets)


def test_a_broken_transfer_is_tried_again(buckets: Path, hub: FakeHub) -> None:
    hub.broken = {"model-00002-of-00002.safetensors": 2}
    fill()
    assert objects(buckets)[f"{REPOSITORY}/model-00002-of-00002.safetensors"] == b"second" * 1000


@pytest.mark.parametrize("path", ["model-00002-of-00002.safetensors", "config.json"])
def test_content_other_than_published_never_becomes_an_object(buckets: Path, hub: FakeHub, path: str) -> None:
    hub.broken = {path: 1000}
    with pytest.raises(fill_bucket.Broken, match="another content than published"):
        fill()
    assert f"{REPOSITORY}/{path}" not in objects(buckets)
    assert f".filled/{REPOSITORY}.json" not in objects(buckets), "engines must not start on half a checkpoint"


@pytest.mark.usefixtures("buckets")
def test_the_token_goes_to_hugging_face_and_not_along_redirects(hub: FakeHub) -> None:
    fill(token="hf_secret")
    sent = {host: {authorization for where, _, authorization in hub.seen if where == host} for host, _, _ in hub.seen}
    assert sent == {"127.0.0.1": {"Bearer hf_secret"}, "localhost": {""}}


@pytest.mark.usefixtures("buckets")
def test_a_refusal_says_what_to_do(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = True
    monkeypatch.setattr(sys, "argv", ["fill", f"--repository={REPOSITORY}", "--bucket=weights", "--prefix=org/model"])
    with pytest.raises(SystemExit, match=r"403 .* HF_TOKEN"):
        fill_bucket.main()


@pytest.mark.usefixtures("gguf_hub")
def test_of_a_gguf_repository_only_the_one_quantisation_is_copied(buckets: Path) -> None:
    fill("q4_k_m", f"{REPOSITORY}/gguf-q4_k_m")
    copied = [key for key in objects(buckets) if not key.startswith(".filled/")]
    assert copied == [f"{REPOSITORY}/gguf-q4_k_m/model-Q4_K_M.gguf"]


@pytest.mark.usefixtures("gguf_hub")
def test_all_parts_of_a_gguf_model_are_copied_side_by_side(buckets: Path) -> None:
    fill("q8_0", f"{REPOSITORY}/gguf-q8_0")
    copied = sorted(key for key in objects(buckets) if not key.startswith(".filled/"))
    assert copied == [f"{REPOSITORY}/gguf-q8_0/model-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)]


@pytest.mark.usefixtures("gguf_hub")
def test_file_names_in_lower_case_are_found_too(buckets: Path) -> None:
    fill("q5_k_m", f"{REPOSITORY}/gguf-q5_k_m")
    assert f"{REPOSITORY}/gguf-q5_k_m/lower.q5_k_m.gguf" in objects(buckets)


@pytest.mark.usefixtures("gguf_hub", "buckets")
def test_a_quantisation_that_the_repository_lacks_is_an_error_not_an_empty_bucket() -> None:
    with pytest.raises(SystemExit, match="no GGUF file of quantisation q2_k"):
        fill("q2_k", f"{REPOSITORY}/gguf-q2_k")


def test_a_repository_without_an_index_gives_its_one_file(buckets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"w" * 2000, "consolidated.safetensors": b"w" * 2000}
    with serving(files, monkeypatch):
        fill()
    copied = sorted(key for key in objects(buckets) if not key.startswith(".filled/"))
    assert copied == [f"{REPOSITORY}/config.json", f"{REPOSITORY}/model.safetensors"]


@pytest.mark.usefixtures("buckets")
def test_a_repository_without_safetensors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving({"config.json": b"{}", "pytorch_model.bin": b"w"}, monkeypatch),
        pytest.raises(SystemExit, match="lacks safetensors weights"),
    ):
        fill()


def test_the_script_is_one_that_the_images_python_reads() -> None:
    ast.parse(Path(fill_bucket.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
