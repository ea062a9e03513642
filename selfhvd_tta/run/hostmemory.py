"""How much memory this process can still get, from the machine or within its container's limit."""

from __future__ import annotations

import os
from pathlib import Path


def host_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes available without swapping, within a container's limit; None if unknown."""
    free, left = machine_left(meminfo), container_left(cgroup)
    if free is None:
        return left
    return free if left is None else min(free, left)


def machine_left(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the machine has left; None if unknown."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None


def container_left(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes until a container's limit, or None without a limit.

    Both versions of cgroups are understood. Cached file pages that the kernel would give back count as free.
    """
    for limit_file, used_file, stat_file, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            limit, used = (root / limit_file).read_text().strip(), int((root / used_file).read_text())
        except (OSError, ValueError):
            continue
        # Version 1 states "no limit" as the largest number of pages.
        if limit == "max" or int(limit) >= 1 << 60:
            return None
        try:
            stat = dict(line.split() for line in (root / stat_file).read_text().splitlines())
        except (OSError, ValueError):
            stat = {}
        return max(0, int(limit) - used + int(stat.get(cached, 0)))
    return None
