"""Downloads from a plain address: resumed after an interruption, hashed, in place only when complete."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from selfhvd_tta.errors import WeightsError
from selfhvd_tta.files import sha256_of
from selfhvd_tta.weights.cache import OnProgress, writing
from selfhvd_tta.weights.hub import unreachable

TIMEOUT = 10.0
"""Seconds without a byte after which a connection counts as dead."""
ATTEMPTS = 3
"""Connections that may fail in a row without a new byte."""
PAUSE = 0.5
"""Seconds before connecting again."""
_BLOCK = 1 << 18


@dataclass(frozen=True)
class _Origin:
    """Identifies what a partial file is a part of: only bytes of the same content may be appended."""

    url: str
    etag: str
    sha256: str

    def resumable(self, other: _Origin | None) -> bool:
        if other is None:
            return False
        if self.sha256:
            return other.sha256 == self.sha256
        return bool(other.etag) and other.url == self.url


class _CutShort(OSError):
    """The connection ended before the file was complete."""


def _open(url: str, start: int, etag: str) -> http.client.HTTPResponse:
    headers = {"User-Agent": "selfhvd-tta", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
    response: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=TIMEOUT
    )
    return response


def _origin(path: Path) -> _Origin | None:
    try:
        return _Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _transfer(url: str, part: Path, sha256: str, size: int | None, progress: OnProgress | None) -> None:
    """Append to ``part`` until it is complete or the connection fails."""
    note = part.with_suffix(".origin")
    before = _origin(note)
    wanted = _Origin(url, before.etag if before else "", sha256)
    start = part.stat().st_size if part.exists() and wanted.resumable(before) else 0
    if size is not None and start >= size:
        start = 0 if start > size else start
        if start == size:
            return
    try:
        response = _open(url, start, wanted.etag if not sha256 else "")
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        # No more bytes: either the file is complete, or this is not a part of it. The digest decides.
        if size is None and sha256 and sha256_of(part) == sha256:
            return
        start, response = 0, _open(url, 0, "")
    with response:
        if response.status != 206:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _CutShort("the server sent a different range than requested")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if size is not None and total is not None and total != size:
            raise WeightsError(
                f"{url} is not the expected file: {total:,} bytes instead of {size:,}",
                "Its owner replaced it. Update selfhvd-tta, or pass a file of your own with --weights.",
            )
        with writing("The download"):
            origin = _Origin(url, response.headers.get("ETag", ""), sha256)
            note.write_text(json.dumps(asdict(origin)), encoding="utf-8")
            file = part.open("r+b" if start else "wb")
        with file:
            file.seek(start)
            file.truncate()
            done = start
            while block := response.read(_BLOCK):
                with writing("The download"):
                    file.write(block)
                    file.flush()
                done += len(block)
                if progress:
                    progress(done, total)
        if total is not None and done < total:
            raise _CutShort(f"the connection ended after {done:,} of {total:,} bytes")


def _complete(url: str, part: Path, sha256: str, size: int | None, progress: OnProgress | None) -> None:
    """Transfer, with more attempts as long as bytes arrive."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _transfer(url, part, sha256, size, progress)
        except urllib.error.HTTPError as error:
            raise WeightsError(f"{url}: the server answers {error.code} {error.reason}", "Try again later.") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.URLError) and isinstance(error.reason, ssl.SSLError):
                hint = "Check the machine's clock and its CA certificates (SSL_CERT_FILE)."
                raise WeightsError(f"{url}: the connection is not trusted: {error.reason}", hint) from error
            # A connection that could not be made is not retried: the message has to come at once.
            grown = part.exists() and part.stat().st_size > before
            failures = 0 if grown else failures + 1
            if failures >= ATTEMPTS or isinstance(error, urllib.error.URLError):
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                raise unreachable(url, reason if isinstance(reason, OSError) else error) from error
            time.sleep(PAUSE)


def fetch(urls: tuple[str, ...], target: Path, *, sha256: str, size: int | None, progress: OnProgress | None) -> str:
    """Download a file into ``target``; a partial file of an earlier attempt (``.part``) is continued.

    Args:
        urls: addresses of the same content, tried in turn.
        target: the file; exists afterwards only if complete and of that digest.
        sha256: its digest, or empty.
        size: its bytes, or None.
        progress: called with bytes so far and in all.

    Returns:
        The file's SHA-256 in hex.

    Raises:
        WeightsError: no connection, an error of the server, or another content than expected.
    """
    part = target.with_name(target.name + ".part")
    with writing("The weights cache"):
        target.parent.mkdir(parents=True, exist_ok=True)
    problem: WeightsError | None = None
    for url in urls:
        # Once more from the start: the partial file may have been of other content.
        for _ in range(2):
            resumed = part.exists()
            try:
                _complete(url, part, sha256, size, progress)
            except WeightsError as error:
                problem = problem or error
                break
            digest = sha256_of(part)
            if not sha256 or digest == sha256:
                with writing("The weights cache"):
                    shutil.move(part, target)
                    part.with_suffix(".origin").unlink(missing_ok=True)
                return digest
            part.unlink()
            problem = WeightsError(
                f"{url} is not the expected file: SHA-256 {digest[:12]}.. instead of {sha256[:12]}..",
                "Its owner replaced it, or a proxy on the way alters files.",
            )
            if not resumed:
                break
    if problem is None:
        raise ValueError("no address to download from")
    raise problem
