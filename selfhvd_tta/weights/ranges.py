"""Reads some tensors of a safetensors file on the Hub, and only their bytes.

The format: 8 bytes with the header's length, the header (JSON: dtype, shape and offsets by name), then the data.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfhvd_tta.errors import WeightsError
from selfhvd_tta.weights import hub
from selfhvd_tta.weights.cache import OnProgress
from selfhvd_tta.weights.rows import Hub

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = 10.0
"""Seconds without a byte after which a connection counts as dead."""
ATTEMPTS = 3
"""Connections that may fail in a row without a new byte."""
_BLOCK = 1 << 18
_LARGEST_HEADER = 1 << 24
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: bytes ``start`` to ``end`` (excluded) of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Reader:
    """Range requests for one file, through the client's session (its proxies, its token, its mirror)."""

    def __init__(self, source: Hub) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        self.source = source
        self._url = hf_hub_url(source.repo, source.file, revision=source.revision)
        self._headers = build_hf_headers()
        self._session: Any = get_session()

    @contextlib.contextmanager
    def _open(self, start: int, end: int) -> Iterator[Iterator[bytes]]:
        """Blocks of one answer, not read ahead: a server that ignores the range must not send us the whole file."""
        from huggingface_hub.utils import hf_raise_for_status

        headers = self._headers | {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        # The session is httpx's in recent releases of the client, requests' in older ones.
        if callable(getattr(self._session, "stream", None)):
            opened = self._session.stream("GET", self._url, headers=headers, timeout=TIMEOUT)
            blocks = "iter_bytes"
        else:
            opened = self._session.get(self._url, headers=headers, timeout=TIMEOUT, stream=True)
            blocks = "iter_content"
        with opened as response:
            if response.status_code >= 400:
                hf_raise_for_status(response)
            if response.status_code != 206:
                raise WeightsError(
                    f"{self.source}: the server does not serve parts of a file", "Use another mirror (HF_ENDPOINT)."
                )
            yield getattr(response, blocks)(_BLOCK)

    def read(self, start: int, end: int, progress: OnProgress | None = None) -> bytearray:
        """Bytes ``start`` to ``end`` (excluded); resumes where a connection broke.

        Raises:
            WeightsError: no connection, no access, or the server does not serve ranges.
        """
        content = bytearray()
        failures = 0
        while len(content) < end - start:
            before = len(content)
            try:
                with hub.explained(str(self.source), self.source.repo), self._open(start + before, end) as blocks:
                    for block in blocks:
                        content += block
                        if progress:
                            progress(len(content), end - start)
                if len(content) == before:
                    raise WeightsError(f"{self.source}: an empty answer", "Try again later.")
            except WeightsError as error:
                # Without a cause the answer was read and is wrong; another attempt would get the same answer.
                failures = 1 if len(content) > before else failures + 1
                if error.__cause__ is None or failures >= ATTEMPTS or not content:
                    raise
        if len(content) > end - start:
            raise WeightsError(f"{self.source}: more bytes arrived than were asked for", "Try again later.")
        return content


def _places(header: bytearray, data_start: int, source: Hub, names: Collection[str]) -> list[_Place]:
    """Places of the named tensors, in the order of the file; checks sizes against shapes."""
    try:
        entries: Mapping[str, Any] = json.loads(header.decode())
        places = []
        for name in names:
            entry = entries[name]
            begin, end = entry["data_offsets"]
            place = _Place(name, entry["dtype"], tuple(entry["shape"]), data_start + begin, data_start + end)
            if begin < 0 or math.prod(place.shape) * _BYTES[place.dtype] != place.end - place.start:
                raise ValueError(f"offsets of '{name}' do not fit its shape")
            places.append(place)
    except KeyError as error:
        raise WeightsError(f"{source} is not the expected file: it has no {error}", "Update selfhvd-tta.") from error
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{source} has a damaged safetensors header", "Try again later.") from error
    return sorted(places, key=lambda place: place.start)


def fetch_tensors(source: Hub, names: Collection[str], progress: OnProgress | None) -> dict[str, Tensor]:
    """Named tensors of a safetensors file on the Hub; adjacent ones in one request.

    Args:
        source: the file.
        names: of floating point tensors in it.
        progress: called with bytes so far and in all.

    Raises:
        WeightsError: no connection, no access, no such tensor, damaged, or values that are not finite.
    """
    import torch

    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    reader = _Reader(source)
    (length,) = struct.unpack("<Q", reader.read(0, 8))
    if length > _LARGEST_HEADER:
        raise WeightsError(f"{source} is not a safetensors file", "Update selfhvd-tta.")
    places = _places(reader.read(8, 8 + length), 8 + length, source, names)
    total = sum(place.end - place.start for place in places)
    done = 0
    tensors: dict[str, Tensor] = {}
    while places:
        run = [places.pop(0)]
        while places and places[0].start == run[-1].end:
            run.append(places.pop(0))

        def report(bytes_of_run: int, _: int | None, before: int = done) -> None:
            if progress:
                progress(before + bytes_of_run, total)

        content = reader.read(run[0].start, run[-1].end, report)
        done += len(content)
        for place in run:
            part = content[place.start - run[0].start : place.end - run[0].start]
            tensors[place.name] = torch.frombuffer(part, dtype=dtypes[place.dtype]).reshape(place.shape)
            if not torch.isfinite(tensors[place.name]).all():
                raise WeightsError(f"{source} arrived damaged: '{place.name}' is not finite", "Try again.")
    return tensors
