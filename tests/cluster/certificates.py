"""Keys and certificates of one control plane, made anew for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose certificate is the file ``ca``."""

    def __init__(self, directory: Path, name: str) -> None:
        self._authority = trustme.CA(organization_name=name)
        self._directory = directory
        self.ca = directory / f"{name}-ca.crt"
        self._authority.cert_pem.write_to_path(self.ca)

    def pair(self, name: str, *, group: str | None = None) -> Pair:
        """Give a pair for the user ``name`` of ``group``, which may also serve on the loopback interface."""
        leaf = self._authority.issue_cert("localhost", "127.0.0.1", common_name=name, organization_name=group)
        file = name.replace(":", "-")
        pair = Pair(self._directory / f"{file}.crt", self._directory / f"{file}.key")
        for position, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(pair.certificate, append=position > 0)
        leaf.private_key_pem.write_to_path(pair.key)
        return pair
