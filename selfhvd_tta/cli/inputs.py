"""What users pass instead of a video, refused before anything slow is imported; and where the result goes."""

from __future__ import annotations

from pathlib import Path

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.refusal import refuse_other_things

# Formats of the pictures in folders of frames; other still pictures are always a mistake.
FRAME_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff"))
PHOTO_SUFFIXES = FRAME_SUFFIXES | {".heic", ".heif", ".webp", ".bmp", ".dng", ".avif"}
WRITTEN_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv"))
SUFFIX = "-sharp"


def default_output(video: Path) -> Path:
    """Path of the result next to its input: ``shaky-sharp.mp4``; a folder for a folder."""
    video = Path(video.absolute()) if not video.name else video
    if video.is_dir():
        return video.with_name(f"{video.name}{SUFFIX}")
    kept = video.suffix if video.suffix.lower() in WRITTEN_SUFFIXES else ".mp4"
    return video.with_name(f"{video.stem}{SUFFIX}{kept}")


def check_input(video: Path) -> None:
    """Refuse what is not a video and say what to do instead; files are not opened.

    Raises:
        InputError: an address, a stream, a picture, a folder of videos, or a file that is not there.
    """
    refuse_other_things(video)
    text = str(video)
    if not video.exists():
        raise InputError(f"{text}: there is no such file", "Check the path.")
    if video.suffix.lower() in PHOTO_SUFFIXES and video.is_file():
        raise InputError(
            f"{text}: is a single picture, which has no sharp neighbours to learn from",
            "Give a video, or the folder that holds its frames.",
        )
    if video.is_dir():
        from selfhvd_tta.batch.plan import VIDEO_SUFFIXES

        names = [entry for entry in video.iterdir() if not entry.name.startswith(".")]
        videos = sum(entry.suffix.lower() in VIDEO_SUFFIXES for entry in names)
        if videos and not any(entry.suffix.lower() in FRAME_SUFFIXES for entry in names):
            what = "a video" if videos == 1 else f"{videos} videos"
            raise InputError(f"{text}: is a folder with {what}", f"Use: selfhvd-tta batch '{text}' -o '{text}{SUFFIX}'")
