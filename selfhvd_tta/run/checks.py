"""Checks that are made before any work: paths that will be written, and names in the settings.

Paths are checked without torch, so that a wrong one is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from selfhvd_tta.errors import DiskError, UsageError, WeightsError
from selfhvd_tta.events import ignore
from selfhvd_tta.files import same_file
from selfhvd_tta.plugins import check_name, declared_names
from selfhvd_tta.settings import NO_BACKBONE, Settings

WEIGHTS_SUFFIX = ".safetensors"
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]")
DEVICES = re.compile(r"auto|(cpu|cuda|mps)(:\d+)?")


@dataclass(frozen=True)
class NewFile:
    """A file that is to be written in addition to a result.

    Attributes:
        flag: what asked for it, for example ``--report``.
        path: where it goes.
        suffixes: what its name may end in, in lower case; empty: anything.
    """

    flag: str
    path: Path
    suffixes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.flag} {self.path}"


def check_paths(video: Path, output: Path, settings: Settings, others: Sequence[NewFile] = ()) -> None:
    """Refuse a run that would fail to write one of its files in the end, or overwrite one that it needs.

    The output itself is only compared with the others here, see :func:`selfhvd_tta.video.writer.check_output`.

    Args:
        video: the input.
        output: the result, a file or a folder of images.
        settings: all settings; ``output.overwrite`` holds for every file.
        others: what else is to be written; the adapted weights of the settings need not be named.

    Raises:
        UsageError: a file exists, is an input or another output, or its name does not suit its content; there is no
            such kind of device.
        WeightsError: a file of weights that the settings name is missing.
        DiskError: a folder is missing or not writable.
    """
    if DEVICES.fullmatch(settings.runtime.device) is None:
        raise UsageError(f"unknown device '{settings.runtime.device}'", "Use auto, cpu, cuda or cuda:N.")
    if str(output) == "-":
        raise UsageError("-: the result is a file, not a stream", "Give a name such as sharp.mp4.")
    if os.name == "posix" and WINDOWS_PATH.match(str(output)):
        raise UsageError(f"{output}: is a path of Windows", "In WSL, drive C: is /mnt/c.")
    new = list(others)
    if settings.save_adapted is not None:
        new.append(NewFile("--save-adapted", Path(settings.save_adapted), (WEIGHTS_SUFFIX,)))
    read: dict[str, str | Path | None] = {
        "--weights": settings.weights,
        "--adapted": settings.adapted,
        "--merge-weights": settings.alignment.merge_weights,
    }
    for name, path in read.items():
        if path is not None and not Path(path).is_file():
            raise WeightsError(f"{name}: there is no weights file {path}", "Check the path.")
    for file in new:
        for name, path in {"the input": video, **read}.items():
            if path is not None and same_file(file.path, Path(path)):
                raise UsageError(f"{file}: is the same file as {name}", "Choose another name.")
        if same_file(file.path, output) or _inside(file.path, output):
            raise UsageError(f"{file}: is the output or lies in it ({output})", "Choose another name.")
        check_file(file, settings.output.overwrite)
    for one, other in combinations(new, 2):
        if same_file(one.path, other.path):
            raise UsageError(f"{one}: {other.flag} writes the same file", "Choose another name.")


def check_file(file: NewFile, overwrite: bool) -> None:
    """Refuse a file that exists already (unless it may be replaced), cannot be written or has the wrong suffix.

    Raises:
        UsageError, DiskError: see :func:`check_paths`.
    """
    path, parent = file.path, file.path.parent
    if file.suffixes and path.suffix.lower() not in file.suffixes:
        raise UsageError(f"{file}: wrong type of file", f"Give a name that ends in {', '.join(file.suffixes)}.")
    if path.is_dir():
        raise UsageError(f"{file}: is a folder", "Give the name of a file.")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{file}: exists already", "Add --overwrite to replace it, or choose another name.")
    if not parent.is_dir():
        raise DiskError(f"{file}: there is no folder {parent}", f"Create it first: mkdir -p '{parent}'")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise DiskError(f"{file}: no permission to write to {parent}", "Change its permissions or choose another one.")


def _inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in the folder, or would, of a result that is a folder of images."""
    return not folder.suffix and Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def check_spelling(settings: Settings) -> None:
    """Refuse a mistyped backbone or flow without importing torch, which takes seconds.

    What this cannot know, :func:`check_names` finds: plug-ins of other distributions, and whether weights are there.

    Raises:
        UsageError: there is no such network or variant.
    """
    chosen = (
        ("backbone", "BACKBONE", settings.backbone, ("auto", NO_BACKBONE)),
        ("flow", "FLOW", settings.alignment.flow, ("auto",)),
    )
    for kind, constant, name, words in chosen:
        if name in words or name.startswith("hf:"):
            continue
        package = f"selfhvd_tta.{kind}s"
        known = declared_names(package, constant, package)
        if known is not None:
            check_name(kind, name, known)


def check_names(settings: Settings) -> None:
    """Refuse settings that name a device, network or file of weights that a run could not use.

    Nothing is downloaded. Weights that are on this machine are read, which takes a fraction of a second.

    Raises:
        UsageError: a name is unknown, or two settings contradict each other.
        DeviceError: the device is not usable.
        WeightsError: weights are missing, damaged or do not fit, or their licence has not been accepted.
    """
    from selfhvd_tta.run import device, networks, perceptual

    here = device.choose_device(settings.runtime.device, ignore)
    device.choose_compute(settings, here, networks.check_backbone(settings))
    networks.check_flow(settings)
    if settings.blends and settings.alignment.merge_weights is not None:
        networks.load_merger(settings, device.CPU, ignore)
    if settings.adapts:
        perceptual.check_layer(settings.adaptation.vgg_layer)
    if settings.literal and settings.runtime.offline:
        networks.load_features(settings, device.CPU, ignore)  # the only one that a run cannot do without
