"""Damage small clips of every container in many ways, and see what the tool makes of each.

    python benchmarks/mutants.py --count 1000
    python benchmarks/mutants.py --count 100 --command

Each mutant (bits flipped, runs zeroed, parts cut out or doubled, the end cut off, by a seed) is read, restored by a
network that does nothing, and written, in a process of its own with a time limit: more than a minute counts as a hang.
``--command`` runs the real command with ``--method transfer`` instead. How each ended is counted by exit code. There
must be no traceback, hang, crash, incomplete output, file left behind, frame that is lost without a word, or sound that
begins or ends more than one packet away from where the source has it.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
LIMIT_S = 60
ALLOWED = {0, 1, 2, 6}  # done, damaged input, refused by the trial, and (an index that promises gigabytes) no room
FRAMES = 24


@dataclass(frozen=True)
class Kind:
    """How the clip of one container is made.

    Attributes:
        video: encoder of the picture.
        audio: encoder of the sound.
        base: unit of time.
        rate: frames per second.
        options: of the video encoder.
        packet_s: longest packet of sound in seconds. WMA is converted: what WMA and AAC need to start and to end counts
            as sound.
    """

    video: str = "libx264"
    audio: str = "aac"
    base: Fraction = Fraction(1, 15360)
    rate: int = 30
    options: tuple[tuple[str, str], ...] = (("crf", "20"), ("g", "8"), ("bf", "2"))
    packet_s: float = 0.027


MILLISECOND = Fraction(1, 1000)
BROADCAST = Fraction(1, 90000)
VP8 = (("g", "8"), ("deadline", "realtime"))
OLD = (("g", "8"), ("bf", "0"))
KINDS = {
    "mp4": Kind(),
    "mov": Kind(),
    "mkv": Kind(base=MILLISECOND, rate=25),
    "webm": Kind("libvpx", "libopus", MILLISECOND, 25, VP8),
    "avi": Kind("mpeg4", "libmp3lame", options=OLD),
    "ts": Kind(base=BROADCAST),
    "m2ts": Kind(audio="ac3", base=BROADCAST),
    "wmv": Kind("wmv2", "wmav2", MILLISECOND, 25, OLD, packet_s=0.07),
    "flv": Kind(base=MILLISECOND, rate=25),
    "3gp": Kind(),
    "mxf": Kind("mpeg2video", "pcm_s16le", Fraction(1, 25), 25, (("g", "8"), ("bf", "2"))),
    "ogv": Kind("libvpx", "vorbis", Fraction(1, 25), 25, VP8),
}
CONTAINERS = tuple(KINDS)


def make(folder: Path, container: str) -> Path:
    """A clip of 24 frames, three key frames, with sound."""
    from tests.media import make_clip
    from tests.test_video_damage import noisy

    kind = KINDS[container]
    step = round(1 / (kind.rate * kind.base))
    return make_clip(
        folder / f"whole.{container}",
        [step * i for i in range(FRAMES)],
        kind.base,
        codec=kind.video,
        planes=noisy,
        options=dict(kind.options),
        audio_seconds=FRAMES / kind.rate,
        audio_codec=kind.audio,
        rate=Fraction(kind.rate),
    )


@dataclass(frozen=True)
class Ended:
    """How one run ended.

    Attributes:
        code: exit code.
        frames: of the output.
        warned: something was said about damage.
        notes: all that was said.
    """

    code: int
    frames: int = 0
    warned: bool = False
    notes: tuple[str, ...] = ()


def judge(source: Path, output: Path, command: bool) -> Ended:
    """How one run ended; raises what the tool should have caught."""
    from selfhvd_tta.errors import SelfHVDError

    if command:
        options = ["--method", "transfer", "--flow", "dis:ultrafast", "--teachers", "1", "--offline", "--force"]
        done = subprocess.run(
            [sys.executable, "-m", "selfhvd_tta", "deblur", str(source), "-o", str(output), *options, "--quiet"],
            cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        if "Traceback" in done.stderr or "unexpected failure" in done.stderr:
            raise RuntimeError(done.stderr)
        return Ended(done.returncode)
    from selfhvd_tta.settings import OutputSettings
    from selfhvd_tta.video.opening import open_reader, open_writer
    from selfhvd_tta.video.rehearsal import rehearse

    settings = OutputSettings(preset="ultrafast", overwrite=True)
    try:
        reader = open_reader(source)
        rehearse(output, reader.info, settings)
        count = sum(1 for _ in reader.luma())
        with open_writer(output, reader, settings) as writer:
            for frame in reader:
                writer.write(frame.rgb, frame.pts)
        if not count:
            raise RuntimeError("no frame, and no error")
    except SelfHVDError as error:
        if not error.hint or "\n" in error.message + error.hint:
            raise RuntimeError(f"not for a user: {error.message!r} {error.hint!r}") from error
        return Ended(int(error.exit_code))
    return Ended(0, count, bool(reader.warnings), (*reader.warnings, *writer.notes))


def ends(path: Path) -> list[float]:
    """How much later than the picture the sound's first and last packets come, in seconds; empty without sound."""
    import av

    times: dict[str, list[float]] = {"video": [], "audio": []}
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[:1] + container.streams.audio[:1]):
            at = packet.pts if packet.pts is not None else packet.dts
            if packet.stream.type == "video" and packet.size and not _decodable(packet):
                continue  # in a damaged file, anything may be taken for a packet
            if packet.size and at is not None:
                times[packet.stream.type].append(float(at * packet.time_base))
    if not times["audio"] or not times["video"]:
        return []
    return [min(times["audio"]) - min(times["video"]), max(times["audio"]) - max(times["video"])]


def _decodable(packet: Any) -> bool:
    import av

    try:
        packet.decode()
    except av.error.FFmpegError:
        return False
    return True


def apart(source: Path, output: Path) -> float:
    """By how many seconds sound and picture are further apart in the output, at the beginning or the end."""
    return max((abs(a - b) for a, b in zip(ends(source), ends(output), strict=True)), default=0.0)


def complete(output: Path) -> bool:
    """Whether a file decodes from its beginning to its end."""
    import av

    try:
        with av.open(str(output)) as container:
            stream = container.streams.video[0]
            frames = [frame for frame in container.decode(stream) if not frame.is_corrupt]
            return 0 < len(frames) == (stream.frames or len(frames))
    except av.error.FFmpegError:
        return False


def in_child(source: Path, output: Path, command: bool) -> tuple[str, Ended]:
    """``ok`` and how it ended, or what went wrong; in a forked process, which may hang or crash."""
    import signal

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(LIMIT_S)
        found: object = None
        try:
            found = judge(source, output, command)
        except BaseException:  # noqa: BLE001 - counted by the parent
            found = traceback.format_exc()[-60_000:]
        os.write(writing, pickle.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        sent = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ("hang" if number == signal.SIGALRM else f"crash by signal {number}"), Ended(-1)
    found = pickle.loads(sent)
    return ("ok", found) if isinstance(found, Ended) else (f"traceback: {found}", Ended(-1))


def run(containers: tuple[str, ...], count: int, command: bool, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Outcomes by container and exit code, and a line for everything that must not be."""
    import selfhvd_tta.video.rehearsal  # noqa: F401 - so that the forked processes need not import it
    from tests.mutations import mutate

    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "work"
        folder.mkdir()
        output = folder / "out.mkv"
        whole, plain = {}, {}
        for container in containers:
            source = make(Path(name), container)
            whole[container] = source.read_bytes()
            if not command:
                plain[container] = in_child(source, output, command)[1].notes
                if (seconds := apart(source, output)) > KINDS[container].packet_s:
                    wrong.append(f"{container}: undamaged, and the sound is {seconds:.3f} s off")
                output.unlink()
        for seed in range(first, first + count):
            container = containers[seed % len(containers)]
            source = folder / f"mutant.{container}"
            source.write_bytes(mutate(whole[container], seed))
            what, ended = in_child(source, output, command)
            outcomes[f"{container} exit {ended.code}" if what == "ok" else f"{container} {what.split(':')[0]}"] += 1
            outcomes[f"{container} shorter, unnoticed"] += 0 < ended.frames < FRAMES and not ended.warned
            where = f"{container} seed {seed}"
            if what != "ok":
                wrong.append(f"{where}: {what}")
            elif ended.code not in ALLOWED:
                wrong.append(f"{where}: exit code {ended.code}")
            if what == "ok" and (ended.code == 0) != output.exists():
                there = "there" if output.exists() else "missing"
                wrong.append(f"{where}: exit code {ended.code}, but output {there}")
            if output.exists() and not complete(output):
                wrong.append(f"{where}: the output is not complete")
            # Where anything is missing the source's own times are no measure.
            elif ended.frames == FRAMES and ended.notes == plain.get(container):
                seconds = apart(source, output)
                wrong += [f"{where}: the sound is {seconds:.3f} s off"] * (seconds > KINDS[container].packet_s)
            output.unlink(missing_ok=True)
            left = sorted(set(os.listdir(folder)) - {source.name})
            if left and what == "ok":
                wrong.append(f"{where}: left behind {left}")
            for entry in left:
                subprocess.run(["rm", "-rf", str(folder / entry)], check=True)
            source.unlink()
    return outcomes, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--container", choices=CONTAINERS, action="append")
    parser.add_argument("--command", action="store_true")
    args = parser.parse_args()
    outcomes, wrong = run(tuple(args.container or CONTAINERS), args.count, args.command, args.first)
    for name in sorted(outcomes):
        print(f"{name}: {outcomes[name]}")
    print(f"{args.count} mutants, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
