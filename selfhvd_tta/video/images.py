"""Folders of images as videos: in and out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from selfhvd_tta.errors import InputError, UsageError, VerificationError
from selfhvd_tta.files import write_atomically
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.color import Array, ColorTags, YuvCoding, full_range_luma
from selfhvd_tta.video.probe import IMAGES, VideoInfo
from selfhvd_tta.video.reader import Frame, LumaFrame
from selfhvd_tta.video.target import IMAGE_SUFFIXES, check_target, disk_errors, make_workplace, publish

CODECS = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg", ".tif": "tiff", ".tiff": "tiff"}
DEFAULT_RATE = Fraction(30)
FOLDER = "{0} has no ending, so it becomes a folder of images ({0}.mp4 would be a video)"
LEDGER = "images.json"
_LUMA = np.array([[0.2126, 0.7152, 0.0722]])


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]


class ImageReader:
    """Reads a folder of images as a video of constant frame rate.

    PNG, JPEG and TIFF with 8 or 16 bits, ordered by name with numbers counted; gray becomes neutral RGB, an alpha
    channel is left out, JPEG's orientation tag is applied. The methods are those of :class:`VideoReader`.

    Args:
        path: the folder; hidden files and other kinds of files in it are ignored.
        rate: frames per second.
        part: of them to read, by that rate; they count from its first one.

    Raises:
        UsageError: there is no image in that part.
        InputError: no images, one that cannot be read, or images of different sizes or depths (when it is reached).
    """

    def __init__(self, path: str | Path, rate: Fraction = DEFAULT_RATE, part: TimeRange | None = None) -> None:
        folder = Path(path)
        try:
            entries = [p for p in folder.iterdir() if p.suffix.lower() in CODECS and not p.name.startswith(".")]
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed ({error.strerror})", "Check the folder.") from error
        self.files = sorted(entries, key=natural_order)
        self.warnings: list[str] = []
        if not self.files:
            raise InputError(f"{folder}: holds no images", f"Give a video, or a folder with {', '.join(CODECS)} files.")
        if part is not None:
            count = len(self.files)
            self.files = [f for i, f in enumerate(self.files) if part.start <= i / rate < (part.stop or i / rate + 1)]
            if not self.files:
                hint = f"There are {count} images, which count as {float(count / rate):g} s."
                raise UsageError(f"{folder}: there is no image in that --range", hint)
        first = load_image(self.files[0])
        deep = first.dtype == np.uint16
        alpha = _has_alpha(self.files[0])
        self.info = VideoInfo(
            path=folder,
            width=first.shape[1],
            height=first.shape[0],
            frames=len(self.files),
            time_base=1 / rate,
            average_rate=rate,
            duration_s=float(len(self.files) / rate),
            pix_fmt=("rgba64le" if alpha else "rgb48le") if deep else ("rgba" if alpha else "rgb24"),
            bit_depth=16 if deep else 8,
            color=ColorTags().resolve("rgb24", first.shape[0]),
            codec=CODECS[self.files[0].suffix.lower()],
            container=IMAGES,
        )

    @property
    def pts(self) -> tuple[int, ...]:
        """Presentation times: the images are counted."""
        return tuple(range(len(self.files)))

    def __iter__(self) -> Iterator[Frame]:
        return self.read(range(len(self.files)))

    def luma(self) -> Iterator[LumaFrame]:
        """Luma of all images (BT.709), as :meth:`VideoReader.luma`."""
        coding = YuvCoding(1, True, 8 * self._dtype.itemsize)
        for frame in self:
            yield LumaFrame(frame.index, frame.pts, full_range_luma(cv2.transform(frame.rgb, _LUMA), coding))

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Some images by position, as :meth:`VideoReader.read`.

        Raises:
            IndexError: an index is out of range, or they are not ascending.
        """
        wanted = list(indices)
        if any(b <= a for a, b in pairwise(wanted)):
            raise IndexError("frame indices must be ascending")
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.files):
            raise IndexError(f"frame indices {wanted[0]}..{wanted[-1]} are not within 0..{len(self.files) - 1}")
        for index in wanted:
            image = load_image(self.files[index])
            if image.shape[:2] != (self.info.height, self.info.width) or image.dtype != self._dtype:
                size = f"{self.info.width}x{self.info.height}, {8 * self._dtype.itemsize} bits"
                raise InputError(
                    f"{self.files[index]}: is {image.shape[1]}x{image.shape[0]}, {8 * image.dtype.itemsize} bits, "
                    f"but the first image is {size}",
                    "Convert all images to one size and depth, or remove the one that differs.",
                )
            yield Frame(index, index, image)

    @property
    def _dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        return np.dtype(np.uint16) if self.info.bit_depth == 16 else np.dtype(np.uint8)


def load_image(path: Path) -> Array:
    """(H, W, 3) RGB of an image file, uint8 or uint16.

    Raises:
        InputError: it cannot be read, or is of another type.
    """
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        what = "cannot be read as an image" if image is None else f"holds {image.dtype} values"
        raise InputError(f"{path}: {what}", "Use 8- or 16-bit PNG, JPEG or TIFF files.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode(path: Path, flags: int) -> Array | None:
    try:
        data = np.fromfile(path, np.uint8)
        return cv2.imdecode(data, flags) if data.size else None
    except (OSError, cv2.error):
        return None


def _has_alpha(path: Path) -> bool:
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    return image is not None and image.ndim == 3 and image.shape[2] == 4


class ImageWriter:
    """Writes frames as images into a new folder, which appears under its name when it is complete.

    From a folder of images the names and kinds are kept; a video gives ``000000.png`` and so on, with 16 bits where it
    has more than 8. JPEG is written at quality 98 without chroma subsampling. Use it like :class:`VideoWriter`.

    Args:
        out: folder; it must not exist, or hold nothing but images and ``settings.overwrite`` be set.
        info: of the source.
        settings: whether an existing folder may be replaced.
        names: of the images, for a source that has names; one for each frame.
        segments: an existing folder that keeps finished images for a resumed run.
        seal: identifies what makes the frames; images of a run with another seal are not taken over.

    Attributes:
        notes: one line for each thing that had to be converted or left out.
        frames_done: images that an earlier run finished; continue with the next one.

    Raises:
        UsageError, DiskError: as :func:`check_target`.
    """

    def __init__(
        self,
        out: str | Path,
        info: VideoInfo,
        settings: OutputSettings,
        *,
        names: Sequence[str] | None = None,
        segments: Path | None = None,
        seal: str = "",
    ) -> None:
        self.info = info
        self.target = check_target(out, info.path, settings.overwrite)
        if not self.target.is_folder:
            raise UsageError(f"{out}: is not the name of a folder", "Leave out the suffix for a folder of images.")
        self.names = names
        self.notes: list[str] = []
        if info.container != IMAGES:
            self.notes.append(FOLDER.format(self.target.path.name))
        if info.others:
            self.notes.append("sound, subtitles and frame times have no place in a folder of images")
        if info.layout.alpha:
            self.notes.append("the alpha channel is left out")
        self._workplace = make_workplace(self.target, segments)
        self._folder = segments if segments is not None else self._workplace / "images"
        self._last_pts: int | None = None
        with disk_errors(self.target.path):
            self._folder.mkdir(exist_ok=True)
            self.frames_done = self._take_over(
                hashlib.sha256(f"{seal} {info.width} {info.height}".encode()).hexdigest()
            )
        self._count = self.frames_done

    def __enter__(self) -> ImageWriter:
        return self

    def write(self, rgb: Array, pts: int) -> None:
        """Add the next frame, as :meth:`VideoWriter.write`."""
        expected = (self.info.height, self.info.width, 3)
        if rgb.shape != expected:
            raise ValueError(f"a frame of shape {rgb.shape} was given, {expected} is needed")
        if self._last_pts is not None and pts <= self._last_pts:
            raise ValueError(f"frame times must increase: {pts} after {self._last_pts}")
        path = self._folder / self._name(self._count)
        with disk_errors(self.target.path):
            save_image(path, as_integers(rgb, 16 if self.info.bit_depth > 8 else 8))
        self._count += 1
        self._last_pts = pts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._workplace, ignore_errors=True)

    def _finish(self) -> None:
        if not self._count:
            raise InputError(f"{self.info.path}: gave no frame", "The file may be damaged; check that it plays.")
        finished = self._workplace / "finished"
        with disk_errors(self.target.path):
            finished.mkdir()
            for index in range(self._count):
                shutil.copyfile(self._folder / self._name(index), finished / self._name(index))
        publish(finished, self.target)

    def _name(self, index: int) -> str:
        if self.names is None:
            return f"{index:06d}.png"
        return self.names[index]

    def _take_over(self, fingerprint: str) -> int:
        """Number of images in order that an earlier run with this fingerprint finished."""
        ledger = self._folder / LEDGER
        try:
            same = json.loads(ledger.read_text()) == fingerprint
        except (OSError, ValueError):
            same = False
        if not same:
            for old in self._folder.iterdir():
                if old.suffix.lower() in IMAGE_SUFFIXES:
                    old.unlink()
            ledger.write_text(json.dumps(fingerprint))
        count = 0
        while (self.names is None or count < len(self.names)) and (self._folder / self._name(count)).is_file():
            count += 1
        return count


def as_integers(rgb: Array, bits: int) -> Array:
    """RGB of any kind that writers take as uint8 (``bits`` 8) or uint16 with white at 65535 (16)."""
    peak, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    if rgb.dtype == dtype:
        return rgb
    white = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1
    return np.rint(np.clip(rgb.astype(np.float32) * (peak / white), 0, peak)).astype(dtype)


def save_image(path: Path, rgb: Array) -> None:
    """Write an image, complete or not at all, and read it back.

    Raises:
        OSError: it cannot be written.
        VerificationError: it does not read back.
    """
    suffix = path.suffix.lower()
    options = {".jpg": _JPEG, ".jpeg": _JPEG, ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3]}.get(suffix, [])
    if suffix in (".jpg", ".jpeg"):
        rgb = as_integers(rgb, 8)
    done, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    with write_atomically(path) as part:
        if done:
            part.write_bytes(data.tobytes())
        again = _decode(part, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if done else None
        lossless = suffix not in (".jpg", ".jpeg")
        if again is None or again.shape != rgb.shape or (lossless and not np.array_equal(again[..., ::-1], rgb)):
            raise VerificationError(f"{path}: the written image does not read back", "Check the disk.")


_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    98,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]
