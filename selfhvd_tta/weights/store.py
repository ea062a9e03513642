"""Weights by name, file or Hub repository: found, fetched, verified, converted, read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfhvd_tta.errors import WeightsError
from selfhvd_tta.files import sha256_of
from selfhvd_tta.weights import https, hub
from selfhvd_tta.weights.cache import (
    OnProgress,
    Pin,
    Receipt,
    cache_dir,
    exclusive,
    manual_dir,
    read_receipt,
    write_receipt,
    writing,
)
from selfhvd_tta.weights.convert import read_checkpoint
from selfhvd_tta.weights.ranges import fetch_tensors
from selfhvd_tta.weights.rows import Bundled, Download, Hub, Manual, Row, bundled_folder, find_row, table
from selfhvd_tta.weights.tensors import CONVERT_HINT, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

State = Literal["here", "downloadable", "manual", "missing"]


@dataclass(frozen=True)
class Availability:
    """Whether weights are available, without asking the network.

    Attributes:
        state: ``here``: can be loaded now; ``downloadable``: :func:`load` will download them; ``manual``: the user
            has to fetch a file; ``missing``: not available now (offline, or not part of this installation).
        path: the file, if here.
        bytes: to be downloaded, if known, at least roughly.
        reason: one line for the user, if not here.
    """

    state: State
    path: Path | None = None
    bytes: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Weights:
    """A state dict and its origin.

    Attributes:
        tensors: by the authors' key names, on the CPU.
        path: the safetensors file.
        sha256: its digest.
        row: its row of the table; None for a file of the user or a Hub repository.
        config: what the file or repository says of itself: ``backbone``, ``variant``, ``config``, ...; may be empty.
        notices: lines worth telling the user, for example that a digest was recorded for the first time.
    """

    tensors: dict[str, Tensor]
    path: Path
    sha256: str
    row: Row | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def _manual_path(source: Manual) -> Path:
    return manual_dir() / source.file


def _manual_reason(row: Row, source: Manual) -> tuple[str, str]:
    note = f" ({row.note})" if row.note else ""
    return (
        f"The weights '{row.name}' have to be fetched by hand from {source.page}{note}",
        f"Save the file as {_manual_path(source)} and run again.",
    )


def _receipt_for(row: Row) -> Receipt | None:
    """The receipt of a row, unless the table expects another file by now."""
    receipt = read_receipt(row.name)
    if receipt is None or receipt.source != str(row.source):
        return None
    return receipt if row.sha256 in ("", receipt.source_sha256) else None


def find(name: str, *, offline: bool) -> Availability:
    """Whether the weights of that name are available; looks only at names and sizes of files (milliseconds).

    Raises:
        WeightsError: no such row.
    """
    row = find_row(name)
    source = row.source
    if isinstance(source, Bundled):
        path = _bundled_path(source)
        if path.is_file():
            return Availability("here", path)
        reason = f"not part of this installation; copy weights/{source.file} of the repository to {manual_dir()}"
        return Availability("missing", reason=reason)
    if row.kind == "perceptual" and (parts := sorted(cache_dir().glob(f"{name}-*.safetensors"))):
        return Availability("here", parts[0])
    receipt = _receipt_for(row)
    if receipt is not None and receipt.present():
        return Availability("here", Path(receipt.path))
    if isinstance(source, Manual):
        path = _manual_path(source)
        return (
            Availability("here", path)
            if path.is_file()
            else Availability("manual", reason=_manual_reason(row, source)[0])
        )
    if isinstance(source, Hub) and (path_in_hub := hub.cached_file(source)):
        return Availability("here", path_in_hub)
    if offline or (isinstance(source, Hub) and hub.offline_wanted()):
        return Availability(
            "missing", bytes=row.size or row.about, reason="not on this machine, and downloading is off"
        )
    return Availability("downloadable", bytes=row.size or row.about)


def load(
    name: str, *, offline: bool, on_progress: OnProgress | None = None, accept_non_commercial: bool = False
) -> Weights:
    """Load the weights of that name, downloading, verifying and converting them first if needed.

    Args:
        name: a row of the table.
        offline: never ask the network (``HF_HUB_OFFLINE`` does the same for the Hub).
        on_progress: called with bytes so far and in all while downloading.
        accept_non_commercial: the user knows that the licence forbids commercial use.

    Raises:
        WeightsError: no such row, not available, damaged, or not accepted; one line with what to do.
    """
    row = find_row(name)
    if row.non_commercial and not accept_non_commercial:
        raise WeightsError(
            f"The licence of '{row.name}' ({row.licence}) forbids commercial use",
            "Pass --accept-non-commercial if that fits your purpose.",
        )
    if row.kind == "perceptual":
        raise WeightsError(f"'{row.name}' is read in part only", "It is fetched when an adaptation needs it.")
    if isinstance(row.source, Bundled):
        return _load_bundled(row, row.source)
    receipt = _receipt_for(row)
    if receipt is not None and receipt.unchanged():  # no lock: the cache may be read-only, as in an image
        return _read(row, receipt)
    with exclusive(row.name):
        receipt = _receipt_for(row)
        if receipt is not None and receipt.verified():
            if not receipt.unchanged():  # copied or restored: the same content at another time
                write_receipt(row.name, replace(receipt, mtime_ns=Path(receipt.path).stat().st_mtime_ns))
            return _read(row, receipt)
        return _obtain(row, row.source, offline=offline, progress=on_progress)


def _bundled_path(source: Bundled) -> Path:
    """The file that came with the package, or the one that the user copied to where fetched files lie."""
    path, own = bundled_folder() / source.file, manual_dir() / source.file
    return own if own.is_file() and not path.is_file() else path


def _load_bundled(row: Row, source: Bundled) -> Weights:
    path = _bundled_path(source)
    if not path.is_file():
        raise WeightsError(
            f"The weights '{row.name}' are not part of this installation",
            f"Copy weights/{source.file} of the repository to {manual_dir() / source.file}.",
        )
    tensors, config = read_safetensors(path)
    digest = sha256_of(path)
    if row.sha256 and digest != row.sha256:
        raise WeightsError(f"The bundled weights {path} are damaged: wrong SHA-256", "Reinstall selfhvd-tta.")
    return Weights(tensors, path, digest, row, config)


def _read(row: Row, receipt: Receipt, notices: tuple[str, ...] = ()) -> Weights:
    tensors, config = read_safetensors(Path(receipt.path))
    return Weights(tensors, Path(receipt.path), receipt.sha256, row, config, notices)


def _obtain(row: Row, source: Hub | Download | Manual, *, offline: bool, progress: OnProgress | None) -> Weights:
    """Fetch, verify, convert and remember the file of a row."""
    pin: Pin = "table" if row.sha256 else "first download"
    if isinstance(source, Hub):
        offline = offline or hub.offline_wanted()
        fetched = hub.fetch(source, sha256=row.sha256, offline=offline, progress=progress)
        path, digest, pin = fetched.path, fetched.sha256, fetched.pin
    elif isinstance(source, Download):
        path = cache_dir() / "downloads" / source.file
        if path.is_file() and row.sha256 and sha256_of(path) == row.sha256:
            digest = row.sha256
        elif offline:
            raise hub.not_offline(str(source))
        else:
            digest = https.fetch(source.urls, path, sha256=row.sha256, size=row.size, progress=progress)
    else:
        path = _manual_path(source)
        if not path.is_file():
            raise WeightsError(*_manual_reason(row, source))
        digest = sha256_of(path)
        if row.sha256 and digest != row.sha256:
            raise WeightsError(f"{path} is not the expected file: wrong SHA-256", f"Fetch it again from {source.page}.")
    return _keep(row, path, digest, pin)


def _keep(row: Row, path: Path, digest: str, pin: Pin, *, copy: bool = False) -> Weights:
    """Convert a verified file (or copy it, if it is safetensors already and asked for) and write its receipt."""
    before = read_receipt(row.name)
    known = before.source_sha256 if before and before.source == str(row.source) else ""
    # Without a digest in the table, later files have to match the first one.
    if not row.sha256 and known and known != digest:
        raise WeightsError(
            f"{row.source} is not the file it was before: SHA-256 {digest[:12]}.. instead of {known[:12]}..",
            f"If its owner replaced it, delete {cache_dir() / f'{row.name}.json'} to accept the new one.",
        )
    readable = path
    if copy or path.suffix != ".safetensors":
        checkpoint = read_checkpoint(path)
        readable = cache_dir() / f"{row.name}.safetensors"
        write_safetensors(
            readable, checkpoint.tensors, {"backbone": row.model, "variant": row.variant, "sha256": digest}
        )
        if path.is_relative_to(cache_dir() / "downloads"):
            with writing("The weights cache"):
                path.unlink()
    receipt = Receipt.of(readable, source=str(row.source), source_sha256=digest, pin=pin)
    notices: tuple[str, ...] = ()
    if pin != "table" and not known:
        stated = "the Hub states it, too" if pin == "hub" else "nothing to compare it with"
        notices = (f"SHA-256 of '{row.name}' recorded at first use: {digest} ({stated})",)
    weights = _read(row, receipt, notices)
    write_receipt(row.name, receipt)
    return weights


def load_part(
    name: str, part: str, tensors: Collection[str], *, offline: bool, on_progress: OnProgress | None = None
) -> Weights:
    """Some tensors of a large safetensors file on the Hub, read by byte range and kept in a small file of our own.

    No digest can vouch for a part of a file: sizes and finite values are checked, the transport is encrypted, and the
    digest of every tensor is recorded in the file's description (``tensors``).

    Args:
        name: a row whose source is on the Hub.
        part: name of the part, for the cache.
        tensors: names of the tensors.
        offline: take them from a cache or fail.
        on_progress: called with bytes so far and in all.

    Raises:
        WeightsError: not available, or not the expected file.
    """
    row = find_row(name)
    source = row.source
    if not isinstance(source, Hub):
        raise WeightsError(f"'{name}' is not on the Hub", f"It is read whole from {source}.")
    key = f"{name}-{part}"
    receipt = read_receipt(key)
    if receipt is not None and receipt.source == str(source) and receipt.unchanged():
        return _read(row, receipt)
    with exclusive(key):
        receipt = read_receipt(key)
        if receipt is not None and receipt.source == str(source) and receipt.verified():
            return _read(row, receipt)
        digest = ""
        if whole := hub.cached_file(source):
            found = {key: tensor for key, tensor in read_safetensors(whole)[0].items() if key in tensors}
            if missing := set(tensors) - set(found):
                raise WeightsError(f"{whole} is not the expected file: it has no '{min(missing)}'", "Delete it.")
        elif offline or hub.offline_wanted():
            raise hub.not_offline(str(source))
        else:
            digest = hub.ask(source).sha256
            found = fetch_tensors(source, tensors, on_progress)
        path = cache_dir() / f"{key}.safetensors"
        digests = {key: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for key, tensor in found.items()}
        write_safetensors(path, found, {"source": str(source), "tensors": digests})
        receipt = Receipt.of(path, source=str(source), source_sha256=digest, pin="hub" if digest else "first download")
        write_receipt(key, receipt)
        return _read(row, receipt)


def adopt(name: str, path: Path) -> Weights:
    """Take a file that the user fetched by hand for the weights of that name: verify, convert, keep.

    Raises:
        WeightsError: no such row, not to be read, or of another digest than the table's.
    """
    row = find_row(name)
    if isinstance(row.source, Bundled) or row.kind == "perceptual":
        raise WeightsError(f"'{name}' needs no file by hand", "Leave it out.")
    if not path.is_file():
        raise WeightsError(f"There is no file {path}", "Check the path.")
    digest = sha256_of(path)
    if row.sha256 and digest != row.sha256:
        raise WeightsError(f"{path} is not the file of '{name}': wrong SHA-256", f"Fetch it from {row.source}.")
    with exclusive(name):
        return _keep(row, path, digest, "table" if row.sha256 else "first download", copy=True)


def recognise(path: Path) -> Row | None:
    """The row whose file this is: by its digest, else by its name among the files that are fetched by hand.

    Raises:
        WeightsError: there is no such file.
    """
    if not path.is_file():
        raise WeightsError(f"There is no file {path}", "Check the path.")
    digest = sha256_of(path)
    rows = [row for row in table().values() if row.kind != "perceptual"]
    by_digest = [row for row in rows if row.sha256 == digest]
    by_name = [row for row in rows if isinstance(row.source, Manual) and row.source.file == path.name]
    return next(iter([*by_digest, *by_name]), None)


def load_file(path: str | Path) -> Weights:
    """A safetensors file of the user, with what it says of itself.

    Raises:
        WeightsError: missing, a pickle, damaged, or with values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path} is a folder", "Name the safetensors file in it.")
    if path.suffix in (".pth", ".pt", ".tar", ".ckpt", ".bin") and path.is_file():
        raise WeightsError(f"{path} is a pickle, which is never opened at run time", CONVERT_HINT)
    tensors, config = read_safetensors(path)
    return Weights(tensors, path, sha256_of(path), None, config)


def load_hub(repo: str, *, offline: bool, on_progress: OnProgress | None = None, revision: str = "main") -> Weights:
    """A repository in our layout: ``config.json`` (``backbone``, ``variant``, ...) and ``model.safetensors``.

    Args:
        repo: ``owner/name``.
        offline: take it from the client's cache or fail.
        on_progress: called with bytes so far and in all while downloading.
        revision: branch, tag or commit.

    Raises:
        WeightsError: not available, not in our layout, or damaged.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise WeightsError(f"'{repo}' is not the name of a Hub repository", "Write it as owner/name.")
    offline = offline or hub.offline_wanted()
    described = hub.fetch(Hub(repo, CONFIG_FILE, revision), sha256="", offline=offline, progress=None)
    try:
        config = json.loads(described.path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"hf:{repo}/{CONFIG_FILE} is not JSON", "Publish it again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("backbone"), str):
        raise WeightsError(
            f"hf:{repo} is not in this tool's layout: {CONFIG_FILE} names no backbone",
            "It has to come from: selfhvd-tta weights publish",
        )
    source = Hub(repo, WEIGHTS_FILE, revision)
    with contextlib.nullcontext() if offline else exclusive(f"hub--{repo.replace('/', '--')}"):
        fetched = hub.fetch(source, sha256="", offline=offline, progress=on_progress)
    tensors, own = read_safetensors(fetched.path)
    return Weights(tensors, fetched.path, fetched.sha256, None, own | config)
