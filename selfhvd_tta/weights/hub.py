"""Downloads from the Hugging Face Hub by its own client into its own cache, with checks that the client omits.

The client compares sizes only. Here the digest that the Hub states (the ETag of a large file is its SHA-256) is
compared with ours before a byte is transferred, and the file's own digest with both afterwards.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfhvd_tta.errors import UnreachableError, WeightsError
from selfhvd_tta.files import sha256_of
from selfhvd_tta.weights.cache import OnProgress, Pin, expanded
from selfhvd_tta.weights.rows import Hub

# huggingface_hub is imported where it is used: that takes a while, and most runs need no network.

METADATA_TIMEOUT = 5.0
"""Seconds to wait for the Hub's first answer."""
SILENCE = 60.0
"""Seconds for which a Hub that could not be reached is not asked again: a run asks for several files."""
_down: dict[str, tuple[float, str]] = {}
"""By endpoint: when it was found unreachable (monotonic seconds), and the reason."""


def offline_wanted() -> bool:
    """Whether the environment forbids asking the Hub (``HF_HUB_OFFLINE``), by the client's own rules."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def cached_file(source: Hub) -> Path | None:
    """A file that the client has in its cache already; reads two small files at most and imports nothing."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    folder = expanded(hub) / f"models--{source.repo.replace('/', '--')}"
    try:
        commit = (folder / "refs" / source.revision).read_text().strip()
    except OSError:
        commit = source.revision
    path = folder / "snapshots" / commit / source.file
    return path if path.is_file() else None


def _network_errors() -> tuple[type[Exception], ...]:
    """What the client raises, for any of the HTTP libraries that its releases were built on.

    ``HfHubHTTPError`` derives from that library's base class: ``requests.HTTPError`` (an OSError, as all of requests'
    errors) or ``httpx.HTTPError`` (the base of all of httpx's). The Xet transport raises RuntimeError.
    """
    from huggingface_hub import errors

    xet = getattr(errors, "XetDownloadError", RuntimeError)
    return (*errors.HfHubHTTPError.__bases__, OSError, RuntimeError, xet)


@contextlib.contextmanager
def explained(source: str, repo: str) -> Iterator[None]:
    """Turn the client's errors into one line each.

    Raises:
        WeightsError: for all of them.
    """
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        hint = f"Accept its conditions at {page}, then log in with: hf auth login"
        raise WeightsError(f"{source}: the repository is gated", hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "Check the name; for a private repository log in with: hf auth login"
        raise WeightsError(f"{source}: the Hub has no repository {repo}, or you have no access to it", hint) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{source}: the repository has no such revision", f"Look at {page}.") from error
    except errors.LocalEntryNotFoundError as error:
        raise unreachable(source, error) from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{source}: the repository has no such file", f"Look at {page}/tree/main.") from error
    except errors.HFValidationError as error:
        raise WeightsError(f"{source}: '{repo}' is not the name of a repository", "Write it as owner/name.") from error
    except errors.OfflineModeIsEnabled as error:
        raise not_offline(source) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no")
        if status in (401, 403):
            message = f"{source}: the Hub refuses access (status {status})"
            raise WeightsError(message, "Log in with: hf auth login") from error
        raise WeightsError(f"{source}: the Hub answers with status {status}", "Try again later.") from error
    except _network_errors() as error:
        raise unreachable(source, error) from error


def unreachable(source: str, error: BaseException) -> WeightsError:
    """The error for a network that cannot be reached, or a disk that is full."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return WeightsError(
            f"{source}: {error.strerror} ({error.filename})", "Free some space, or point HF_HOME to another folder."
        )
    return UnreachableError(source, (str(error).strip() or type(error).__name__).splitlines()[0][:160])


def not_offline(source: str) -> WeightsError:
    """The error for a download that is needed but forbidden."""
    return WeightsError(
        f"{source} is not on this machine, and downloading is off (offline mode)",
        "Run once without --offline and without HF_HUB_OFFLINE, or use a bundled network (selfhvd-tta models).",
    )


def _bar(progress: OnProgress) -> type:
    """A class with the part of tqdm's interface that the client uses; it calls ``progress`` and draws nothing.

    With ``update_transfer`` the client feeds network and disk progress of one file to one bar instead of two.
    """

    class Bar:
        def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
            self.total, self.n = total, initial
            self.format_dict: dict[str, Any] = {}

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            progress(int(self.n), None if self.total is None else int(self.total))

        def update_transfer(self, n: float) -> None: ...
        def set_transfer_postfix_str(self, *_: object, **__: object) -> None: ...
        def set_postfix_str(self, *_: object, **__: object) -> None: ...
        def set_description(self, *_: object, **__: object) -> None: ...
        def refresh(self, *_: object, **__: object) -> None: ...
        def close(self) -> None: ...

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    return Bar


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the client from drawing bars and logging to the terminal: errors arrive as exceptions, we show progress."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    bars, verbosity = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not bars:
            enable_progress_bars()


def is_sha256(text: str | None) -> bool:
    return bool(text and re.fullmatch(r"[0-9a-f]{64}", text))


@dataclass(frozen=True)
class Stated:
    """What the Hub says of a file.

    Attributes:
        source: where it is (its name may have changed).
        size: bytes, if said.
        sha256: its digest; empty for a small file, of which the Hub states no SHA-256.
    """

    source: Hub
    size: int | None
    sha256: str


def ask(source: Hub) -> Stated:
    """One HEAD request for a file, with a short timeout and without the client's retries.

    Raises:
        WeightsError: no connection (now or in the last minute), no such file, no access.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    since, reason = _down.get(constants.ENDPOINT, (-math.inf, ""))
    if time.monotonic() - since < SILENCE:
        raise UnreachableError(str(source), reason)
    try:
        with explained(str(source), source.repo), quiet():
            url = hf_hub_url(source.repo, source.file, revision=source.revision)
            found = get_hf_file_metadata(url, timeout=METADATA_TIMEOUT)
    except UnreachableError as error:
        _down[constants.ENDPOINT] = (time.monotonic(), error.reason)
        raise
    return Stated(source, found.size, found.etag if found.etag and is_sha256(found.etag) else "")


def _same_content(source: Hub, sha256: str) -> Hub | None:
    """Where in the repository the file of that digest is now, if its owner moved or renamed it."""
    from huggingface_hub import HfApi

    with explained(str(source), source.repo), quiet():
        for entry in HfApi().list_repo_tree(source.repo, recursive=True, revision=source.revision):
            if getattr(getattr(entry, "lfs", None), "sha256", None) == sha256:
                return Hub(source.repo, entry.path, source.revision)
    return None


def _ask_or_search(source: Hub, sha256: str) -> Stated:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return ask(source)
    except WeightsError as error:
        if not sha256 or not isinstance(error.__cause__, EntryNotFoundError):
            raise
        moved = _same_content(source, sha256)
        if moved is None:
            raise
        return ask(moved)


def _forget(path: Path) -> None:
    """Remove a bad file from the client's cache, both the name and the content behind it."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)


@dataclass(frozen=True)
class Fetched:
    """A file on this machine whose digest was checked.

    Attributes:
        path: the file.
        sha256: its digest.
        pin: what that was checked against.
    """

    path: Path
    sha256: str
    pin: Pin


def _kept(source: Hub, sha256: str) -> Fetched | None:
    """The file from the client's cache, hashed; None if it is missing or not the expected one."""
    path = cached_file(source)
    if path is None:
        return None
    pin: Pin = "table" if sha256 else "first download"
    blob = path.resolve().name  # the client names the content of a large file by the digest that the Hub stated
    if not sha256 and is_sha256(blob):
        sha256, pin = blob, "hub"
    digest = sha256_of(path)
    return Fetched(path, digest, pin) if not sha256 or digest == sha256 else None


def fetch(source: Hub, *, sha256: str, offline: bool, progress: OnProgress | None) -> Fetched:
    """A file of the Hub, from the client's cache or downloaded into it; hashed on every call.

    Interrupted transfers are resumed by the client within one call; across runs only as far as its release does.

    Args:
        source: the file.
        sha256: its digest, if known; else the one that the Hub states is checked.
        offline: take it from the client's cache or fail.
        progress: called with bytes so far and in all (client releases without ``tqdm_class``: at the end only).

    Raises:
        WeightsError: not there, no connection, no access, or another content than expected.
    """
    pin: Pin = "table" if sha256 else "first download"
    if offline:
        if kept := _kept(source, sha256):
            return kept
        raise not_offline(str(source))
    try:
        stated = _ask_or_search(source, sha256)
    except WeightsError:
        if kept := _kept(source, sha256):
            return kept
        raise
    if sha256 and stated.sha256 and stated.sha256 != sha256:
        raise WeightsError(
            f"{source} is not the file that was checked: SHA-256 {stated.sha256[:12]}.. instead of {sha256[:12]}..",
            "Its owner replaced it. Update selfhvd-tta, or pass a file of your own with --weights.",
        )
    if not sha256 and stated.sha256:
        sha256, pin = stated.sha256, "hub"
    path = _download(stated.source, progress, force=False)
    digest = sha256_of(path)
    if sha256 and digest != sha256:
        # A truncated or corrupted file in the client's cache, which the client would keep trusting.
        path = _download(stated.source, progress, force=True)
        digest = sha256_of(path)
    if sha256 and digest != sha256:
        _forget(path)
        raise WeightsError(
            f"{source} arrived damaged: SHA-256 {digest[:12]}.. instead of {sha256[:12]}..",
            "Try again; a proxy or mirror on the way may alter files.",
        )
    if progress and stated.size is not None:
        progress(stated.size, stated.size)
    return Fetched(path, digest, pin)


def _download(source: Hub, progress: OnProgress | None, *, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    download: Callable[..., str] = hf_hub_download
    more: dict[str, Any] = {}
    if progress and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        more["tqdm_class"] = _bar(progress)

    def attempt() -> Path:
        with explained(str(source), source.repo), quiet():
            return Path(
                download(
                    source.repo,
                    source.file,
                    revision=source.revision,
                    etag_timeout=METADATA_TIMEOUT,
                    force_download=force,
                    **more,
                )
            )

    try:
        return attempt()
    except WeightsError as error:
        # Recent releases of the client reconnect by themselves, older ones continue in the next call.
        if not isinstance(error.__cause__, _network_errors()):
            raise
        ask(source)  # can the Hub be reached at all? If not, the error comes after one short timeout
    return attempt()
