"""``python -m tests.cluster.build [PART…]``: build the real parts from their sources, once for each set of versions.

Binaries stand in ``${XDG_CACHE_HOME:-~/.cache}/frugal-llm/cluster-tools/<digest of the versions>``, so that a second
clone builds nothing. From cold caches the build takes 10 to 25 minutes on two cores, and needs Go 1.26 and its module
proxy; Prometheus is Debian's, unpacked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SOURCES: Final = Path(__file__).parent / "tools"
# What shares no versions with the others has a module of its own.
_PICKER_SOURCES: Final = _SOURCES / "picker"
_LOAD_SOURCES: Final = _SOURCES / "load"

KUBERNETES_VERSION: Final = "1.36.3"
"""Of ``tools/go.mod``; the binary is told, because a module's version does not reach it."""

_BUILD_LIMIT_S: Final = 40 * 60
"""A build that takes longer has no business in a test run: it fails."""


class CannotBuild(Exception):
    """A part that the tests need cannot be had here."""


class Tools:
    """The parts, each built when it is first asked for and not there yet."""

    def __init__(self) -> None:
        self.directory = _cache() / _digest()
        self.directory.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, name: str) -> Path:
        """Give the binary called ``name``, or the directory of files that belong to a part. Raises `CannotBuild`."""
        target = self.directory / name
        if not target.exists():
            with _alone(self.directory / ".lock"):
                if not target.exists():
                    started = time.monotonic()
                    print(f"building {name} …", file=sys.stderr, flush=True)
                    _PARTS[name](target)
                    print(f"built {name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frugal-llm" / "cluster-tools"


def _digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(file for file in _SOURCES.rglob("*") if file.is_file()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process build; others wait for it and then find everything built."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go(arguments: Sequence[str], directory: Path) -> str:
    if not shutil.which("go"):
        raise CannotBuild("the real parts are built with Go 1.26, and there is no `go` on PATH")
    # The same for all, or they do not share what is compiled; never a toolchain or module that go.sum does not know.
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath", "GOTOOLCHAIN": "local"}
    try:
        run = subprocess.run(
            ["go", *arguments],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_BUILD_LIMIT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise CannotBuild(f"go {' '.join(arguments)}\n{error.stderr[-4000:]}") from None
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"go {' '.join(arguments)}: not done after {_BUILD_LIMIT_S / 60:.0f} minutes") from None
    return run.stdout.strip()


def _binary(package: str, directory: Path = _SOURCES, linked: str = "") -> Callable[[Path], None]:
    def build(target: Path) -> None:
        unfinished = target.with_name(f".{target.name}.unfinished")
        _go(["build", "-ldflags", f"-s -w{linked}", "-o", str(unfinished), package], directory)
        unfinished.rename(target)

    return build


def _module_files(module: str, *patterns: str) -> Callable[[Path], None]:
    """Files that a part needs beside its binary, from the sources of just that version."""

    def copy(target: Path) -> None:
        source = Path(_go(["list", "-m", "-f", "{{.Dir}}", module], _SOURCES))
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for pattern in patterns:
            found = sorted(source.glob(pattern))
            if not found:
                raise CannotBuild(f"{module} has no {pattern}")
            for file in found:
                shutil.copyfile(file, unfinished / "-".join(file.relative_to(source).parts[-3:]))
        unfinished.rename(target)

    return copy


def _prometheus(target: Path) -> None:
    """Prometheus and promtool: those on PATH, else Debian's package, unpacked and not installed."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    if not all(map(shutil.which, ("prometheus", "promtool"))):
        commands = ("apt-get update -qq", "apt-get download -qq prometheus", "dpkg-deb -x prometheus_*.deb .")
        try:
            subprocess.run(
                " && ".join(commands), shell=True, cwd=unfinished, capture_output=True, text=True, check=True
            )
        except subprocess.CalledProcessError as error:
            raise CannotBuild(f"Prometheus is neither on PATH nor to be had from Debian:\n{error.stderr}") from None
    for name in ("prometheus", "promtool"):
        found = shutil.which(name)
        (unfinished / name).symlink_to(found if found else f"usr/bin/{name}")
    unfinished.rename(target)


def _version_of_the_binary() -> str:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    facts = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return "".join(f" -X {package}.{name}={value}" for package in packages for name, value in facts.items())


#: In the order in which they share most of what is compiled. The first is etcd, kube-apiserver, kube-controller-manager
#: and kube-scheduler in one.
_PARTS: Final[dict[str, Callable[[Path], None]]] = {
    "controlplane": _binary(".", linked=_version_of_the_binary()),
    "kwok": _binary("sigs.k8s.io/kwok/cmd/kwok"),
    "karpenter": _binary("github.com/aws/karpenter-provider-aws/kwok"),
    "keda-operator": _binary("github.com/kedacore/keda/v2/cmd/operator"),
    "keda-adapter": _binary("github.com/kedacore/keda/v2/cmd/adapter"),
    "keda-webhooks": _binary("github.com/kedacore/keda/v2/cmd/webhooks"),
    "picker": _binary("sigs.k8s.io/gateway-api-inference-extension/cmd/epp", _PICKER_SOURCES),
    "vegeta": _binary("github.com/tsenart/vegeta/v12", _LOAD_SOURCES),
    "kwok-stages": _module_files(
        "sigs.k8s.io/kwok",
        "kustomize/stage/node/fast/*.yaml",
        "kustomize/stage/node/heartbeat-with-lease/*.yaml",
        "kustomize/stage/pod/fast/*.yaml",
    ),
    "keda-webhook-config": _module_files("github.com/kedacore/keda/v2", "config/webhooks/*.yaml"),
    "prometheus": _prometheus,
}


if __name__ == "__main__":
    parts = Tools()
    try:
        paths = [parts[name] for name in sys.argv[1:] or _PARTS]
    except CannotBuild as problem:
        sys.exit(str(problem))
    if sys.argv[1:]:
        print("\n".join(map(str, paths)))
