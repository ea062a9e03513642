"""Memory left on the machine and in a container, as the kernel's files tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfhvd_tta.run.hostmemory import container_left, host_memory, machine_left


def files(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        ({}, None),
        ({"memory.max": "max\n", "memory.current": "5\n"}, None),
        ({"memory.max": "1000\n", "memory.current": "700\n"}, 300),
        ({"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 1\ninactive_file 250\n"}, 550),
        ({"memory.max": "1000\n", "memory.current": "1200\n"}, 0),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "7"}, None),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "400"}, 600),
        ({"memory.max": "nonsense", "memory.current": "also"}, None),
    ],
)
def test_what_a_container_has_left(texts: dict[str, str], left: int | None, tmp_path: Path) -> None:
    assert container_left(files(tmp_path, texts)) == left


def test_the_smaller_of_both_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert machine_left(meminfo) == 50 * 1024
    small = files(tmp_path / "small", {"memory.max": "1000", "memory.current": "0"})
    large = files(tmp_path / "large", {"memory.max": "100000000", "memory.current": "0"})
    assert host_memory(meminfo, small) == 1000
    assert host_memory(meminfo, large) == host_memory(meminfo, tmp_path) == 50 * 1024
