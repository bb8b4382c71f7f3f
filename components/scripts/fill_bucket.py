#!/usr/bin/env python3
"""Copy one checkpoint from Hugging Face into the weights bucket, once.

Runs in the AWS CLI's image, hence on Python 3.9 and the standard library alone. Files are streamed through memory into
``aws s3 cp -`` and checked against their published hashes before the upload is completed, so nothing is written to
disk and nothing broken is left in the bucket. A finished copy leaves a marker with the commit it took, and with the
marker there the script does nothing; an interrupted copy goes on after the files that are complete.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
CHUNK_BYTES = 8 * 1024 * 1024
# Two streams keep a small node's network busy; each holds some 150 MB of parts.
STREAMS = 2
ATTEMPTS = 5
PAUSE_S = 2
TIMEOUT_S = 60
MARKERS = ".filled"
INDEX = "model.safetensors.index.json"
# What an engine reads beside weights: configuration, tokenizers, chat templates. No code.
SIDE_FILES = (".json", ".jinja", ".model", ".tiktoken", ".txt")


class Broken(Exception):
    """A file does not arrive as published; trying again may help."""


class File(NamedTuple):
    """A file of the repository at one commit."""

    path: str
    size: int
    sha256: str  # of large files, else empty
    blob: str  # git's hash of small files, else empty


class Hub:
    """A repository on Hugging Face, fixed to the commit that is newest now."""

    def __init__(self, repository: str, token: str) -> None:
        self.repository = repository
        self._token = token
        # A token must not follow a redirect to the content servers, which refuse it and have no business with it.
        self._opener = urllib.request.build_opener(_StripToken)
        self.commit: str = self._json(f"{HUB}/api/models/{repository}/revision/main")["sha"]

    def files(self) -> Iterator[File]:
        """List all files, page by page."""
        url = f"{HUB}/api/models/{self.repository}/tree/{self.commit}?recursive=true"
        while url:
            with self._open(url) as response:
                entries = json.load(response)
                following = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link") or "")
            for entry in entries:
                if entry["type"] == "file":
                    large = entry.get("lfs")
                    yield File(
                        entry["path"], entry["size"], large["oid"] if large else "", "" if large else entry["oid"]
                    )
            url = following.group(1) if following else ""

    def json(self, path: str) -> Any:
        """Read a JSON file of the repository."""
        return self._json(self._address(path))

    def chunks(self, file: File) -> Iterator[bytes]:
        """Stream a file; raises Broken at its end when it is not what was published."""
        digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size)
        read = 0
        with self._open(self._address(file.path)) as response:
            while True:
                chunk = response.read(CHUNK_BYTES)
                if not chunk:
                    break
                digest.update(chunk)
                read += len(chunk)
                yield chunk
        if read != file.size or digest.hexdigest() != (file.sha256 or file.blob):
            raise Broken(f"{file.path}: {read} of {file.size} bytes, or another content than published")

    def _address(self, path: str) -> str:
        return f"{HUB}/{self.repository}/resolve/{self.commit}/{urllib.parse.quote(path)}"

    def _json(self, url: str) -> Any:
        with self._open(url) as response:
            return json.load(response)

    def _open(self, url: str) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return self._opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)


class _StripToken(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


class Bucket:
    """The weights bucket, through the AWS CLI: it finds the pod's credentials and splits large uploads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def sizes(self, prefix: str) -> dict[str, int]:
        """Give the complete objects under ``prefix`` with their sizes; an interrupted upload is none."""
        command = ["aws", "s3api", "list-objects-v2", "--bucket", self._name, "--prefix", prefix, "--output", "json"]
        listing = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found = json.loads(listing).get("Contents") or [] if listing.strip() else []
        return {entry["Key"]: entry["Size"] for entry in found}

    def write(self, key: str, size: int, chunks: Iterable[bytes]) -> None:
        """Stream an object; when ``chunks`` raises, the upload is abandoned and no object appears."""
        target = f"s3://{self._name}/{key}"
        command = ["aws", "s3", "cp", "-", target, "--expected-size", str(size), "--only-show-errors"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as upload:
            assert upload.stdin is not None
            try:
                for chunk in chunks:
                    upload.stdin.write(chunk)
            except BaseException:
                # The end of its input would tell the CLI that the object is complete.
                upload.kill()
                raise
            upload.stdin.close()
            if upload.wait() != 0:
                raise Broken(f"aws s3 cp to {key} ended with {upload.returncode}")


def gguf_files(files: Iterable[File], quantization: str) -> dict[str, File]:
    """Choose the file, or the parts, of one GGUF quantisation such as ``q4_k_m``, by their names in the bucket."""
    wanted = re.compile(rf"(^|[-._]){re.escape(quantization.lower())}([-.]|$)")
    chosen = {
        name: file
        for file in files
        for name in [file.path.rsplit("/", 1)[-1]]
        if name.lower().endswith(".gguf") and wanted.search(name.lower())
    }
    if not chosen:
        raise SystemExit(f"the repository has no GGUF file of quantisation {quantization}")
    return chosen


def safetensors_files(files: Iterable[File], hub: Hub) -> dict[str, File]:
    """Choose what vLLM loads: the shards of the index, and what stands beside them.

    vLLM's streamer reads every safetensors file it finds, so copies in another layout (``consolidated…``,
    ``original/``) must stay behind.
    """
    top = {file.path: file for file in files if "/" not in file.path}
    shards = {path for path in top if path.endswith(".safetensors")}
    if INDEX in top:
        shards = set(hub.json(INDEX)["weight_map"].values())
    elif "model.safetensors" in shards:
        shards = {"model.safetensors"}
    missing = sorted(shards - set(top))
    if missing or not shards:
        raise SystemExit(f"the repository lacks safetensors weights: {', '.join(missing) or 'there are none'}")
    return {path: file for path, file in top.items() if path in shards or path.endswith(SIDE_FILES)}


def copy(file: File, key: str, hub: Hub, bucket: Bucket) -> None:
    """Copy one file, trying again when the connection breaks."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            bucket.write(key, file.size, hub.chunks(file))
        except (Broken, OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                raise
            print(f"attempt {attempt} of {ATTEMPTS}: {error}", file=sys.stderr, flush=True)
            time.sleep(PAUSE_S * attempt)
        else:
            print(f"{key}: {file.size / 2**30:.2f} GiB", flush=True)
            return


def fill(repository: str, bucket_name: str, prefix: str, quantization: str, token: str) -> None:
    """Copy the checkpoint to ``prefix`` unless its marker is there."""
    bucket = Bucket(bucket_name)
    marker = f"{MARKERS}/{prefix}.json"
    if marker in bucket.sizes(marker):
        print(f"{prefix} is complete, nothing to do")
        return
    hub = Hub(repository, token)
    files = list(hub.files())
    chosen = gguf_files(files, quantization) if quantization else safetensors_files(files, hub)
    keys = {f"{prefix}/{name}": file for name, file in chosen.items()}
    present = bucket.sizes(f"{prefix}/")
    with ThreadPoolExecutor(STREAMS) as streams:
        copies = [
            streams.submit(copy, file, key, hub, bucket) for key, file in keys.items() if present.get(key) != file.size
        ]
        for result in copies:
            result.result()
    note = json.dumps({"repository": repository, "commit": hub.commit, "files": sorted(keys)}).encode()
    bucket.write(marker, len(note), [note])
    print(f"{prefix} is complete, commit {hub.commit}")


def main() -> None:
    """Read the command line; the token, if any, comes from the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--quantization", default="", help="of a GGUF repository, such as q4_k_m")
    arguments = parser.parse_args()
    try:
        fill(
            arguments.repository,
            arguments.bucket,
            arguments.prefix,
            arguments.quantization,
            os.environ.get("HF_TOKEN", ""),
        )
    except urllib.error.HTTPError as error:
        hint = ": is HF_TOKEN set, and its owner's access granted?" if error.code in (401, 403) else ""
        raise SystemExit(f"{error.code} from {error.url}{hint}") from None


if __name__ == "__main__":
    main()
