"""The root volume of a model node: how large, how fast, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planning.facts.fixed_prices import fixed_price
from planning.facts.instances import Offering
from planning.traffic import HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class RootVolume:
    """A gp3 volume with its free 3,000 operations a second."""

    gib: int
    mib_per_second: int


#: The least of all. Local NVMe holds images, pods and their logs (Karpenter's RAID0 policy): the volume holds the
#: system, for which EKS takes 20 GiB by default.
BESIDE_NVME = RootVolume(30, 125)

#: The vLLM image is about 10 GB compressed and 25 GB unpacked, next to it the OS, logs and compile caches. Unpacking in
#: parallel wants 600 MiB/s; gp3's free operations carry 750.
_OF_GPU_NODE = RootVolume(80, 600)

#: llama.cpp's image is small, and its weights come at the rate of the network: what gp3 does for free is enough.
_OF_CPU_NODE = RootVolume(80, 125)

_FREE_MIB_PER_SECOND = 125


def root_volume(pool: Sequence[Offering]) -> RootVolume:
    """The volume that every node of a pool gets."""
    if all(offering.instance.local_nvme_gb > 0 for offering in pool):
        return BESIDE_NVME
    return _OF_CPU_NODE if pool[0].instance.gpu is None else _OF_GPU_NODE


@dataclass(frozen=True, slots=True)
class VolumePrices:
    """gp3 in a region, USD an hour."""

    gib: float
    mib_per_second: float
    """Above the free throughput."""

    @classmethod
    def of(cls, region: str) -> VolumePrices:
        """The region's prices. Raises ``UnknownFact``."""
        storage, throughput = fixed_price(region, "ebs_gp3_storage"), fixed_price(region, "ebs_gp3_throughput_over_125")
        # EC2 counts both in units of 2^30 and 2^20 bytes and calls them GB and MBps: a volume of 40 GiB is 40 GB-months
        # (aws_ebs_volume in infracost's golden files).
        return cls(storage.usd / HOURS_PER_MONTH, throughput.usd / HOURS_PER_MONTH)

    def usd_per_hour(self, volume: RootVolume) -> float:
        """A volume's hour."""
        more = max(0, volume.mib_per_second - _FREE_MIB_PER_SECOND)
        return volume.gib * self.gib + more * self.mib_per_second
