"""The constant rate factor that suits a source: found by trial encodes of a few of its frames.

Coding a result adds an error to the one that the source's own coding left. That one is not known, but frames of the
source coded again at its bit rate show it: they lose about half as much once more. Frames that are going to be sharper
than they were take more bits, and sharpened copies of them tell how many.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import av
import cv2
import numpy as np

from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.color import Array, rgb_to_yuv
from selfhvd_tta.video.encoding import DEFAULT_CRF, Encoding, choose_encoding
from selfhvd_tta.video.planes import coded_planes, frame_from_planes
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.segments import SEGMENT_FRAMES, SHORTEST_HEVC
from selfhvd_tta.video.source import input_errors, open_input

# Frames that are encoded for trial: groups of consecutive ones, spread over the video; of large frames fewer.
GROUPS, GROUP_FRAMES, LEAST_GROUP = 3, 8, 3
PIXELS = 16_000_000
# Factors that are tried, from the codec's default; the first one is the least that is ever chosen, the last one the
# largest.
TRIED = (-14, -6, 2, 12)
MOST_COST_DB = 0.3
MOST_GROWTH = 2.5
# Measured on a clip of known truth, coded by x264 at CRF 10, 16 and 23: the source's own squared error over that of
# coding it again at its bit rate (1.6, 1.8, 2.1), and how many times as much of a second error costs as little as one
# that had nothing to do with the first would (2 to 3).
OWN_OVER_AGAIN = 1.9
RELATED = 2.5
# Unsharp masking that makes a blurry frame take about as many bits as a restored one (up to 17 % more), and its error
# in coding the same to 10 %.
SHARPEN_SIGMA, SHARPEN_AMOUNT = 1.2, 1.0

Planes = tuple[Array, ...]


@dataclass(frozen=True)
class RateChoice:
    """A constant rate factor, and what it is expected to cost.

    Attributes:
        crf: on the codec's own scale.
        cost: PSNR in dB that frames which stay as they are lose by being coded again, against the unknown original.
        growth: bit rate of the result over the source's.
    """

    crf: int
    cost: float
    growth: float


def follow_source(reader: VideoReader, sharp: Sequence[bool], settings: OutputSettings) -> RateChoice:
    """The largest factor at which coding costs at most 0.3 dB, or the smallest within 2.5 times the source's bit rate.

    Args:
        reader: of the source.
        sharp: for every frame, whether it stays about as it is.
        settings: of the output; their ``crf`` is not looked at.
    """
    codec = choose_encoding(reader.info, settings).codec
    tried = [DEFAULT_CRF[codec] + offset for offset in TRIED]
    encodings = [choose_encoding(reader.info, replace(settings, crf=crf)) for crf in tried]
    again, results = _groups(reader, sharp, encodings[0])
    length = min(SEGMENT_FRAMES, len(sharp))
    trials = [_trial(again, encoding, length) for encoding in encodings]
    growing = [_trial(results, encoding, length)[0] for encoding in encodings]
    return choose(tried, trials, growing, bytes_per_frame(reader))


def choose(
    tried: Sequence[int], again: Sequence[tuple[float, float]], results: Sequence[float], source: float
) -> RateChoice:
    """See :func:`follow_source`.

    Args:
        tried: ascending factors.
        again: for each of them, bytes per frame and mean squared error (8-bit codes) of frames of the source.
        results: bytes per frame of frames as sharp as the result is going to be.
        source: bytes per frame of the source.
    """
    factors = np.arange(tried[0], tried[-1] + 1)
    rate, error, grown = (
        np.exp(np.interp(factors, tried, np.log(np.maximum(values, 1e-6))))
        for values in ([r for r, _ in again], [e for _, e in again], results)
    )
    # Rates fall with the factor.
    alike = int(np.argmin(np.abs(np.log(rate / source))))
    own = OWN_OVER_AGAIN * error[alike]
    cost = 10 * np.log10(1 + error / (RELATED * own))
    good = np.flatnonzero(cost <= MOST_COST_DB)
    small = np.flatnonzero(grown <= MOST_GROWTH * source)
    place = max(int(good[-1]) if good.size else 0, int(small[0]) if small.size else len(factors) - 1)
    return RateChoice(int(factors[place]), float(cost[place]), float(grown[place] / source))


def bytes_per_frame(reader: VideoReader) -> float:
    """Mean size of a coded frame, in the part that is read."""
    info, span, sizes = reader.info, reader.info.span, []
    with open_input(info.path) as container, input_errors(info.path):
        for packet in container.demux(container.streams[info.stream_index]):
            if span is not None and packet.pts is not None:
                at = packet.pts * info.time_base
                if at < span.start or (span.stop is not None and at >= span.stop):
                    continue
            if packet.size:
                sizes.append(packet.size)
    return float(np.mean(sizes)) if sizes else 1.0


def _groups(
    reader: VideoReader, sharp: Sequence[bool], encoding: Encoding
) -> tuple[list[list[Planes]], list[list[Planes]]]:
    """Coded planes of the chosen frames group by group: as they are, and as sharp as the result is going to be."""
    count, area = len(sharp), reader.info.width * reader.info.height
    frames = min(count, GROUPS * GROUP_FRAMES, max(2 * LEAST_GROUP, PIXELS // area))
    groups = min(GROUPS, max(1, frames // (LEAST_GROUP + 1))) if frames < count else 1
    length = frames // groups
    starts = [round(i * (count - length) / max(1, groups - 1)) for i in range(groups)]
    again: list[list[Planes]] = [[] for _ in starts]
    results: list[list[Planes]] = [[] for _ in starts]
    numbers = list(chain.from_iterable(range(start, start + length) for start in starts))
    for place, frame in enumerate(reader.read(numbers)):
        group = place // length
        again[group].append(rgb_to_yuv(frame.rgb, encoding.coding))
        made = again[group][-1] if sharp[frame.index] else rgb_to_yuv(_sharpened(frame.rgb), encoding.coding)
        results[group].append(made)
    return again, results


def _sharpened(rgb: Array) -> Array:
    soft = cv2.GaussianBlur(rgb, (0, 0), SHARPEN_SIGMA)
    return cv2.addWeighted(rgb, 1 + SHARPEN_AMOUNT, soft, -SHARPEN_AMOUNT, 0)


def _trial(groups: list[list[Planes]], encoding: Encoding, length: int) -> tuple[float, float]:
    """Bytes per frame of segments of ``length`` frames, and the mean squared error of luma in 8-bit codes."""
    rates, errors = [], []
    unit = 1 << (encoding.coding.bits - 8)
    for frames in groups:
        sizes, coded = _coded(frames, encoding)
        # A segment has one key frame, as a group has, and more of the others.
        others = float(np.mean(sizes[1:])) if len(sizes) > 1 else 0.0
        rates.append((sizes[0] + (length - 1) * others) / length if others else sizes[0])
        errors += [_error(frame[0], luma) / unit**2 for frame, luma in zip(frames, coded, strict=True)]
    return float(np.mean(rates)), float(np.mean(errors))


def _coded(frames: list[Planes], encoding: Encoding) -> tuple[list[int], list[Array]]:
    """Sizes of the packets in coding order, and the decoded luma planes in that of the frames."""
    file = io.BytesIO()
    sizes: list[int] = []
    with av.open(file, "w", format="matroska") as container:
        stream = encoding.add_to(container)

        def mux(packets: Sequence[av.Packet]) -> None:
            for packet in packets:
                sizes.append(packet.size)
                if len(frames) < SHORTEST_HEVC:
                    packet.dts = packet.pts
                container.mux_one(packet)

        for index, planes in enumerate(frames):
            picture = frame_from_planes(planes, encoding.pix_fmt, encoding.width, encoding.height)
            picture.pts, picture.time_base = index, 1 / encoding.rate
            mux(stream.encode(picture))
        mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as trial:
        decoded = [coded_planes(frame)[0][0].copy() for frame in trial.decode(trial.streams.video[0])]
    return sizes, decoded


def _error(one: Array, other: Array) -> float:
    return float(np.square(one.astype(np.float32) - other).mean())
