"""The command lines of the router's picker and of the decode pods' sidecar, flag by flag.

Names and kinds of value as in llm-d-router ebab687 (2026-08-22): ``pkg/epp/server/options.go`` and ``pkg/sidecar/proxy/
options.go``, with the flags of controller-runtime's zap options that both add. Deprecated flags are left out, and those
of features that no tier has (AMD's MoRI-IO, Mooncake, encoders).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_BOOL: Final = "true|false"
_PORT: Final = "[1-9][0-9]{0,4}"
_PORTS: Final = f"{_PORT}(,{_PORT}){{0,7}}"
_NUMBER: Final = "[0-9]+"
_TEXT: Final = ".+"
_DURATION: Final = r"([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+"
_LABELS: Final = r"[a-z0-9./-]+=[a-z0-9-]+(,[a-z0-9./-]+=[a-z0-9-]+)*"

_LOGGING: Final = {
    "zap-devel": _BOOL,
    "zap-encoder": "json|console",
    "zap-log-level": "debug|info|error|panic|[1-9][0-9]*",
    "zap-stacktrace-level": "info|error|panic",
    "zap-time-encoding": "epoch|millis|nano|iso8601|rfc3339|rfc3339nano",
}

PICKER_FLAGS: Final[Mapping[str, str]] = {
    **_LOGGING,
    "v": _NUMBER,
    "allow-experimental-plugins": _BOOL,
    "cert-path": _TEXT,
    "config-file": _TEXT,
    "config-text": _TEXT,
    "disable-endpoint-subset-filter": _BOOL,
    "drain-timeout": _DURATION,
    "emit-endpoint-scores": _BOOL,
    "enable-cert-reload": _BOOL,
    "enable-grpc-stream-metrics": _BOOL,
    "enable-pprof": _BOOL,
    "endpoint-selector": _LABELS,
    "endpoint-target-ports": _PORTS,
    "grpc-health-port": _PORT,
    "grpc-max-recv-msg-size": _TEXT,
    "grpc-max-send-msg-size": _TEXT,
    "grpc-port": _PORT,
    "ha-enable-leader-election": _BOOL,
    "health-checking": _BOOL,
    "metrics-cert-dir": _TEXT,
    "metrics-client-ca-file": _TEXT,
    "metrics-endpoint-auth": _BOOL,
    "metrics-port": _PORT,
    "metrics-staleness-threshold": _DURATION,
    "pool-group": _TEXT,
    "pool-name": _TEXT,
    "pool-namespace": _TEXT,
    "refresh-metrics-interval": _DURATION,
    "refresh-prometheus-metrics-interval": _DURATION,
    "secure-serving": _BOOL,
    "tls-cipher-suites": _TEXT,
    "tls-min-version": "VersionTLS1[0-3]",
    "tracing": _BOOL,
}

SIDECAR_FLAGS: Final[Mapping[str, str]] = {
    **_LOGGING,
    "cert-path": _TEXT,
    "configuration": _TEXT,
    "configuration-file": _TEXT,
    "data-parallel-size": _NUMBER,
    "decode-chunk-size": _NUMBER,
    "enable-p2p-pull": _BOOL,
    "enable-prefiller-sampling": _BOOL,
    "enable-ssrf-protection": _BOOL,
    "enable-tls": "(prefiller|decoder|encoder)(,(prefiller|decoder|encoder))*",
    "inference-pool": _TEXT,
    "kv-connector": "nixlv2|shared-storage|sglang|mooncake|offloading",
    "max-idle-conns-per-host": _NUMBER,
    "metrics-port": _NUMBER,
    "model-server-port": _PORT,
    "p2p-connector-port": _PORT,
    "pool-group": _TEXT,
    "port": _PORT,
    "prefill-max-retries": _NUMBER,
    "prefill-retry-backoff": _DURATION,
    "secure-proxy": _BOOL,
    "tls-insecure-skip-verify": "(prefiller|decoder|encoder)(,(prefiller|decoder|encoder))*",
    "tracing": _BOOL,
}


def complaints(arguments: Sequence[str], flags: Mapping[str, str]) -> list[str]:
    """List what the command would end at: a flag that it does not know, a value of another kind, a flag given twice."""
    return [*_each(arguments, flags), *_twice(arguments)]


def _each(arguments: Sequence[str], flags: Mapping[str, str]) -> Iterator[str]:
    for text in arguments:
        name, equals, value = text.removeprefix("--").partition("=")
        if not text.startswith("--") or not equals:
            yield f"{text}: not written as --flag=value"
        elif name not in flags:
            yield f"{text}: no such flag"
        elif not re.fullmatch(flags[name], value):
            yield f"{text}: not {flags[name]}"


def _twice(arguments: Sequence[str]) -> Iterator[str]:
    names = [text.partition("=")[0] for text in arguments]
    yield from (f"{name}: stands twice" for name in dict.fromkeys(names) if names.count(name) > 1)
