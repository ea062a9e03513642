"""The rate factor of a result, where the user leaves it open: chosen once a job, from the source."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from selfhvd_tta.method.clues import Clues
from selfhvd_tta.run.job import Job
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.encoding import choose_encoding
from selfhvd_tta.video.opening import Reader
from selfhvd_tta.video.rate_control import RateChoice, follow_source
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.target import CONTAINERS


def choose_rate(reader: Reader, output: Path, clues: Clues, settings: OutputSettings, job: Job) -> RateChoice | None:
    """The choice of the first run, which the runs that continue it keep: all segments are coded alike.

    Args:
        reader: of the source.
        output: the result.
        clues: sharp frames stay about as they are.
        settings: of the output.
        job: remembers it.

    Returns:
        None where there is nothing to choose: the user has, the codec is lossless, or images come in or go out.
    """
    if settings.crf is not None or not isinstance(reader, VideoReader) or output.suffix.lower() not in CONTAINERS:
        return None
    if choose_encoding(reader.info, settings).codec == "ffv1":
        return None
    stored = job.recall("rate")
    if stored is None:
        stored = job.remember("rate", asdict(follow_source(reader, clues.sharp.tolist(), settings)))
    return RateChoice(**stored)


def described(choice: RateChoice) -> str:
    """The choice in one line."""
    return (
        f"CRF {choice.crf}, by trial: about {choice.growth:.1f} times the source's bit rate; coding costs frames that "
        f"stay as they are about {choice.cost:.1f} dB"
    )
