"""What survives in which container, found by writing it: the table of docs/reference/media.md, and its test.

``python -m tests.fidelity`` prints the table, ``python -m tests.fidelity --write`` puts it into that page.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from selfhvd_tta.video import cropping
from selfhvd_tta.video.probe import probe
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.streams import title_of
from tests import test_range, test_video_roundtrip
from tests.media import decode_planes, make_clip, packets, with_user_data
from tests.test_video_fidelity import ORIENTATIONS, hdr_clip
from tests.test_video_streams import CUES, chapters, cover, cues, rich_clip, streams, timed_metadata

OUTPUTS = (".mp4", ".mov", ".mkv")
INPUTS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts")
DOCS = Path(__file__).parent.parent / "docs" / "reference" / "media.md"
VARIABLE = [0, 500, 1100, 1200, 5000, 5100, 5300, 9000, 12000, 12111, 15000, 20000]
BEGIN, END = "<!-- fidelity: begin -->", "<!-- fidelity: end -->"
SAME = "same"
Check = Callable[[Path, str], str]
SAID: list[str] = []
"""What the user was told while the checks ran."""


def identity(source: Path, out: Path, **settings: Any) -> list[str]:
    notes = test_video_roundtrip.identity(source, out, **settings)
    SAID.extend(notes)
    return notes


def part_of(source: Path, out: Path, text: str) -> None:
    SAID.extend(test_range.part_of(source, out, text))


def frame_times(folder: Path, suffix: str) -> str:
    source = make_clip(folder / "in.mp4", VARIABLE, options={"bf": "2"})
    notes = identity(source, folder / f"out{suffix}")
    found = [f.pts * probe(folder / f"out{suffix}").time_base for f in VideoReader(folder / f"out{suffix}")]
    wanted = [Fraction(p, 15360) for p in VARIABLE]
    if found == wanted and not notes:
        return SAME
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= Fraction(1, 2000)
    assert any("rounded to 1 ms" in note for note in notes)
    return "to 1 ms, said"


def before_zero(folder: Path, suffix: str) -> str:
    pts = [40 * i - 100 for i in range(12)]
    muxer = {"avoid_negative_ts": "disabled"}
    source = make_clip(folder / "in.mkv", pts, Fraction(1, 1000), codec="ffv1", muxer=muxer)
    notes = identity(source, folder / f"out{suffix}")
    assert [p for p, _ in decode_planes(folder / f"out{suffix}")] == [p + 100 for p in pts]
    assert any("later" in note for note in notes)
    return "all streams moved to 0, said"


def orientation(folder: Path, suffix: str) -> str:
    for number, (degrees, flip) in enumerate(ORIENTATIONS):

        def turn(_: Any, stream: Any, degrees: int = degrees, flip: bool = flip) -> None:
            stream.set_display_rotation(degrees, hflip=flip)

        source = make_clip(folder / f"in{number}.mp4", [0, 512], prepare=turn)
        identity(source, folder / f"out{number}{suffix}")
        assert probe(folder / f"out{number}{suffix}").display_matrix == probe(source).display_matrix
    return SAME


def shape(folder: Path, suffix: str) -> str:
    source = make_clip(folder / "in.mp4", sar=Fraction(4, 3), size=(66, 50))
    identity(source, folder / f"out{suffix}")
    after = probe(folder / f"out{suffix}")
    assert (after.sar, after.width, after.height) == (Fraction(4, 3), 66, 50)
    return SAME


def color_tags(folder: Path, suffix: str) -> str:
    for number, tags in enumerate([(1, 1, 1, 1), (5, 2, 5, 6), (6, 1, 6, 6), (9, 1, 9, 14)]):
        source = make_clip(folder / f"in{number}.mp4", [0, 512], color=tags)
        out = folder / f"out{number}{suffix}"
        identity(source, out)
        assert probe(out).color == probe(source).color
        with av.open(str(out)) as container:
            frame = next(container.decode(video=0))
            found = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
            assert tuple(map(int, found)) == tags
    return SAME


def _drift(folder: Path, suffix: str, formats: tuple[tuple[str, str], ...], codec: str | None) -> int:
    largest = 0
    for number, (encoder, pix_fmt) in enumerate(formats):
        kind = ".mkv" if encoder == "ffv1" else ".mp4"
        source = make_clip(
            folder / f"in{number}{kind}", [0, 40, 80], Fraction(1, 1000), codec=encoder, pix_fmt=pix_fmt,
            options={} if encoder == "ffv1" else None,
        )  # fmt: skip
        out = folder / f"out{number}{suffix}"
        identity(source, out, codec=codec)
        for (_, a), (_, b) in zip(decode_planes(source), decode_planes(out), strict=True):
            for before, after in zip(a, b, strict=False):
                largest = max(largest, int(np.abs(before.astype(int) - after).max()))
    return largest


def siting(folder: Path, suffix: str) -> str:
    source = make_clip(folder / "in.mp4", options={"crf": "0", "x264-params": "chromaloc=2"})
    identity(source, folder / f"out{suffix}")
    assert probe(source).chroma_location == probe(folder / f"out{suffix}").chroma_location == 3
    return SAME


def eight_bits(folder: Path, suffix: str) -> str:
    names = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj444p", "gray")
    assert _drift(folder, suffix, tuple(("libx264", n) for n in names), None) <= 1
    return "within 1 code"


TEN_BITS = (
    ("libx264", "yuv420p10le"), ("libx264", "yuv422p10le"), ("libx264", "yuv444p10le"), ("ffv1", "gray10le"),
)  # fmt: skip


def ten_bits(folder: Path, suffix: str) -> str:
    """H.264 at its best quality is not quite lossless in 10 bits; FFV1, in Matroska, shows the conversion alone."""
    largest = _drift(folder, suffix, TEN_BITS, "ffv1" if suffix == ".mkv" else "h264")
    assert largest <= (2 if suffix == ".mkv" else 4)
    return "within 2 codes (FFV1)" if suffix == ".mkv" else "within 4 codes with the coding"


def hdr10(folder: Path, suffix: str) -> str:
    source = hdr_clip(folder / "in.mp4")
    identity(source, folder / f"out{suffix}")
    before, after = probe(source), probe(folder / f"out{suffix}")
    assert after.color == before.color
    assert after.bit_depth == 10
    assert after.content_light == before.content_light
    primaries, again = (struct.unpack("<20i", info.mastering_display[:80]) for info in (before, after))
    for i in range(0, 20, 2):
        assert abs(Fraction(again[i], again[i + 1]) / Fraction(primaries[i], primaries[i + 1]) - 1) < 1e-3
    return SAME


def hlg(folder: Path, suffix: str) -> str:
    source = hdr_clip(folder / "in.mp4", transfer=18)
    identity(source, folder / f"out{suffix}")
    assert probe(folder / f"out{suffix}").color == probe(source).color
    return SAME


def _rich(folder: Path, suffix: str) -> tuple[Path, Path, list[str]]:
    source, out = rich_clip(folder / "in.mkv"), folder / f"out{suffix}"
    return source, out, identity(source, out)


def audio(folder: Path, suffix: str) -> str:
    source, out, notes = _rich(folder, suffix)
    payloads = [[[data for *_, data in track] for track in packets(p, "audio")] for p in (source, out)]
    names = [s[1:3] for s in streams(out) if s[0] == "audio"]
    assert [language for _, language in names] == ["deu", "fra"] or suffix == ".mov"
    copied = [name for (name, _), a, b in zip(names, *payloads, strict=True) if a == b]
    if len(copied) == 2:
        return "AAC, Opus copied"
    assert copied == ["aac"]
    assert any("opus" in note and "becomes" in note for note in notes)
    return "AAC copied; Opus becomes AAC, said"


def titles(folder: Path, suffix: str) -> str:
    """Titles and languages of sound, from Matroska and then from MOV."""
    source, middle, out = rich_clip(folder / "in.mkv"), folder / "middle.mov", folder / f"out{suffix}"
    identity(source, middle)
    test_video_roundtrip.identity(middle, out)
    wanted = [("", "deu"), ("Kommentar", "fra")]
    languages = {"ger": "deu"}  # MOV's own list has the other code
    with av.open(str(out)) as container:
        found = [
            (title_of(s.metadata), languages.get(s.metadata["language"], s.metadata["language"]))
            for s in container.streams.audio
        ]
    assert found == wanted
    return SAME


def phone_metadata(folder: Path, suffix: str) -> str:
    source = timed_metadata(folder)
    notes = identity(source, folder / f"out{suffix}")
    assert any("timed metadata" in note and "left out" in note for note in notes)
    return "left out, said"


def subtitles(folder: Path, suffix: str) -> str:
    _, out, notes = _rich(folder, suffix)
    assert cues(out, 0) == cues(out, 1) == CUES
    if [s[1] for s in streams(out) if s[0] == "subtitle"] == ["subrip", "ass"]:
        return SAME
    assert sum("MPEG-4 timed text" in note for note in notes) == 2
    return "text kept as MPEG-4 timed text, said"


def chapter_marks(folder: Path, suffix: str) -> str:
    source, out, _ = _rich(folder, suffix)
    assert chapters(out) == chapters(source)
    return SAME


def attachments(folder: Path, suffix: str) -> str:
    source, out, notes = _rich(folder, suffix)
    found = []
    for path in (source, out):
        with av.open(str(path)) as container:
            found.append([s.data for s in container.streams if s.type == "attachment"])
    if found[0] == found[1]:
        return SAME
    assert any("attachment" in note and "left out" in note for note in notes)
    return "left out, said"


def cover_art(folder: Path, suffix: str) -> str:
    _, out, notes = _rich(folder, suffix)
    with av.open(str(out)) as container:
        pictures = [s.index for s in container.streams.video[1:]]
    if pictures:
        assert [data for *_, data in packets(out, "video")[1]] == [cover()]
        return SAME
    assert any("picture" in note and "left out" in note for note in notes)
    return "left out, said"


def tags(folder: Path, suffix: str) -> str:
    def label(container: Any, _: Any) -> None:
        container.metadata.update({"title": "A", "comment": "B", "custom_key": "C"})

    muxer = {"movflags": "use_metadata_tags"}
    source = make_clip(folder / "in.mp4", prepare=label, muxer=muxer)
    identity(source, folder / f"out{suffix}")
    with av.open(str(folder / f"out{suffix}")) as container:
        found = {k.lower(): v for k, v in container.metadata.items()}
    assert (found["title"], found["comment"], found["custom_key"]) == ("A", "B", "C")
    return SAME


def crop(folder: Path, suffix: str) -> str:
    plain = make_clip(folder / "plain.mp4").read_bytes()
    wanted = {"left": 4, "right": 2, "top": 0, "bottom": 8}
    source = folder / "in.mp4"
    source.write_bytes(cropping.with_clap(plain, cropping.clap(wanted, 64, 48)))
    identity(source, folder / f"out{suffix}")
    demuxer = "matroska" if suffix == ".mkv" else "mov,mp4"
    assert cropping.visible_crop(folder / f"out{suffix}", demuxer, 0, 64, 48) == wanted
    return SAME


def place(folder: Path, suffix: str) -> str:
    text = b"+48.8577+002.2950/"
    box = struct.pack(">HH", len(text), 0x15C7) + text
    source = with_user_data(make_clip(folder / "plain.mp4"), folder / "in.mp4", b"\xa9xyz", box)
    identity(source, folder / f"out{suffix}")
    with av.open(str(folder / f"out{suffix}")) as container:
        assert {k.lower(): v for k, v in container.metadata.items()}["location"] == text.decode()
    return SAME


def makers_data(folder: Path, suffix: str) -> str:
    source = with_user_data(make_clip(folder / "plain.mp4"), folder / "in.mp4", b"GPMF", bytes(60))
    identity(source, folder / f"out{suffix}")
    return "left out, said"


def faststart(folder: Path, suffix: str) -> str:
    source = make_clip(folder / "in.mp4")
    out = folder / f"out{suffix}"
    identity(source, out)
    data = out.read_bytes()
    if b"moov" not in data:
        return "—"
    assert data.index(b"moov") < data.index(b"mdat")
    return "index in front"


def part(folder: Path, suffix: str) -> str:
    source = make_clip(folder / "in.mp4", [512 * i for i in range(60)], audio_seconds=2)
    out = folder / f"out{suffix}"
    part_of(source, out, "0.5-1.5")
    assert len(decode_planes(out)) == 30
    with av.open(str(out)) as container:
        sound, unit = container.streams.audio[0], container.streams.video[0].time_base
        first = next(container.decode(sound))
        assert abs(first.pts * sound.time_base - 0) < Fraction(1024, 48000) + Fraction(1, 1000)
        assert unit is not None
    (before,), (after,) = packets(source, "audio"), packets(out, "audio")
    start = [data for *_, data in before].index(after[0][2])
    assert [data for *_, data in after] == [data for *_, data in before][start : start + len(after)]
    return "sound to the packet"


CHECKS: dict[str, Check] = {
    "frame times (variable rate, B-frames)": frame_times,
    "frames before zero": before_zero,
    "orientation tag, all eight": orientation,
    "size and sample aspect ratio": shape,
    "matrix, range, primaries, transfer; on stream and frames": color_tags,
    "place of the chroma samples (H.264, HEVC)": siting,
    "8 bit: 4:2:0, 4:2:2, 4:4:4, full range, gray": eight_bits,
    "10 bit: 4:2:0, 4:2:2, 4:4:4, gray": ten_bits,
    "HDR10 tags, mastering display, light level": hdr10,
    "HLG tags": hlg,
    "several audio tracks, languages": audio,
    "titles of tracks": titles,
    "timed metadata of a phone": phone_metadata,
    "text subtitles (SubRip, ASS)": subtitles,
    "chapters": chapter_marks,
    "attachments": attachments,
    "cover art": cover_art,
    "tags, own ones too": tags,
    "visible crop (`clap`, PixelCrop)": crop,
    "location of a phone": place,
    "data of a camera's maker in the header": makers_data,
    "starts to play while it downloads": faststart,
    "`--range`": part,
}


def reading(folder: Path, suffix: str) -> str:
    """A source in that container: as many frames, at the same times, in the same order."""
    codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(suffix, "libx264")
    base = Fraction(1, 1000) if suffix in (".mkv", ".webm") else Fraction(1, 15360)
    pts = [40 * i for i in range(24)] if base.denominator == 1000 else [512 * i for i in range(24)]
    options = {"bf": "2", "crf": "10"} if codec == "libx264" else {}
    source = make_clip(folder / f"in{suffix}", pts, base, codec=codec, options=options)
    identity(source, folder / "out.mp4")
    found = [f.pts * probe(folder / "out.mp4").time_base for f in VideoReader(folder / "out.mp4")]
    wanted = [p * base for p in pts]
    assert all(abs(a - b) < Fraction(1, 20000) for a, b in zip(found, wanted, strict=True))
    return "read exactly"


def cell(check: Check, suffix: str) -> str:
    """What the table says; raises where it does not hold."""
    with tempfile.TemporaryDirectory() as folder:
        return check(Path(folder), suffix)


def table() -> str:
    """Markdown."""
    names = {".mp4": "MP4", ".mov": "MOV", ".mkv": "Matroska"}
    head = ["written to", *names.values(), "what is said about it"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    told: set[str] = set()
    for name, check in CHECKS.items():
        SAID.clear()
        cells = [cell(check, suffix) for suffix in OUTPUTS]
        new = [note for note in dict.fromkeys(SAID) if note not in told]
        told.update(new)
        lines.append("| " + " | ".join([name, *cells, "<br>".join(new)]) + " |")
    kinds = [s for s in INPUTS if cell(reading, s)]
    lines += ["", f"Read with every frame, in order and at its time: {', '.join(f'`{s}`' for s in kinds)}."]
    return "\n".join(lines)


def main() -> None:
    text = table()
    print(text)
    if "--write" in sys.argv:
        page = DOCS.read_text()
        before, rest = page.split(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
