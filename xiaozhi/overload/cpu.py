"""What kind of processor this is, as far as int8 models care."""

from enum import StrEnum
from pathlib import Path
from typing import Final

_CPU_INFO: Final = Path("/proc/cpuinfo")


class CpuClass(StrEnum):
    """By how bytes are multiplied; the quickest of each make first."""

    VNNI = "VNNI"
    """x86 that multiplies unsigned by signed bytes without saturating in between."""
    AVX2 = "AVX2 only"
    I8MM = "ARM i8mm"
    DOTPROD = "ARM dotprod"
    ARM = "ARM"
    OTHER = "other"
    """Or unknown: not Linux."""


# What the kernel calls it, the quickest first; `asimd` is every 64-bit ARM.
_FLAGS: Final = (
    ("avx512_vnni", CpuClass.VNNI),
    ("avx_vnni", CpuClass.VNNI),
    ("avx2", CpuClass.AVX2),
    ("i8mm", CpuClass.I8MM),
    ("asimddp", CpuClass.DOTPROD),
    ("asimd", CpuClass.ARM),
)


def cpu_class(cpu_info: Path = _CPU_INFO) -> CpuClass:
    """The class of this machine: what all of its cores can do, as Linux tells in `/proc/cpuinfo`."""
    try:
        text = cpu_info.read_text(encoding="ascii", errors="replace")
    except OSError:
        return CpuClass.OTHER
    cores = [
        set(line.partition(":")[2].split()) for line in text.splitlines() if line.startswith(("flags", "Features"))
    ]
    common = set.intersection(*cores) if cores else set()
    return next((found for flag, found in _FLAGS if flag in common), CpuClass.OTHER)
