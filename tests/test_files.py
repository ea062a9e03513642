"""Files that are complete or absent, and paths that name the same file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from selfhvd_tta.files import identity, same_file, sha256_of, write_atomically


def test_a_file_appears_complete_and_with_the_permissions_of_any_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / ("n" * 240 + ".txt")
    with write_atomically(path) as part:
        part.write_text("half")
        part.chmod(0o600)  # as some libraries leave their files
        assert not path.exists()
        part.write_text("whole")
    other = tmp_path / "other"
    other.touch()
    assert path.read_text() == "whole"
    assert path.stat().st_mode == other.stat().st_mode
    assert os.listdir(path.parent) == [path.name]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail() -> None:
        with write_atomically(path) as part:
            part.write_text("after")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_changed_input_is_told_from_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    content = bytes(range(256)) * 20_000
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()
    before, stat = identity(path), path.stat()
    changed = bytearray(content)
    changed[-1] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identity(path) != before
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identity(path) == before


def test_one_place_under_several_names(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    (tmp_path / "folder").mkdir()
    assert same_file(path, tmp_path / "folder" / ".." / "a.mp4"), "neither exists"
    path.touch()
    os.link(path, tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to(path)
    assert same_file(path, tmp_path / "hard.mp4")
    assert same_file(tmp_path / "soft.mp4", tmp_path / "hard.mp4")
    assert not same_file(path, tmp_path / "b.mp4")
