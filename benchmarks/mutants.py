"""Damage small clips of every container in many ways, and see what the tool makes of each.

    python benchmarks/mutants.py --count 1000
    python benchmarks/mutants.py --count 100 --command

Each mutant (bits flipped, runs zeroed, parts cut out or doubled, the end cut off, by a seed) is read, restored by a
network that does nothing, and written, in a process of its own with a time limit: once more than a minute counts as a
hang. ``--command`` runs the real command with ``--method transfer`` instead. What is counted: how it ended, by exit
code;
tracebacks, hangs, crashes of the process, outputs that are incomplete, and files left behind have to be none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi")
LIMIT_S = 60
ALLOWED = {0, 1, 6}  # done, damaged input, and (an index that promises gigabytes) no room


def make(folder: Path, container: str) -> Path:
    """A clip of 24 frames, three key frames, with sound where the codec is at hand."""
    from tests.media import make_clip
    from tests.test_video_damage import noisy

    path = folder / f"whole.{container}"
    times, base = [512 * i for i in range(24)], Fraction(1, 15360)
    if container in ("mkv", "webm"):
        times, base = [33 * i for i in range(24)], Fraction(1, 1000)
    if container == "webm":
        return make_clip(path, times, base, codec="libvpx", planes=noisy, options={"g": "8", "deadline": "realtime"})
    if container == "avi":
        options = {"g": "8", "bf": "0"}
        return make_clip(path, times, base, codec="mpeg4", planes=noisy, options=options, audio_seconds=0)
    options = {"crf": "20", "g": "8", "bf": "2"}
    return make_clip(path, times, base, planes=noisy, options=options, audio_seconds=0.8)


def judge(source: Path, output: Path, command: bool) -> int:
    """Exit code of one run; raises what the tool should have caught."""
    from selfhvd_tta.errors import SelfHVDError

    if command:
        options = ["--method", "transfer", "--flow", "dis:ultrafast", "--teachers", "1", "--offline", "--force"]
        done = subprocess.run(
            [sys.executable, "-m", "selfhvd_tta", "deblur", str(source), "-o", str(output), *options, "--quiet"],
            cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        if "Traceback" in done.stderr or "unexpected failure" in done.stderr:
            raise RuntimeError(done.stderr)
        return done.returncode
    from selfhvd_tta.settings import OutputSettings
    from selfhvd_tta.video.opening import open_reader, open_writer

    try:
        reader = open_reader(source)
        count = sum(1 for _ in reader.luma())
        with open_writer(output, reader, OutputSettings(preset="ultrafast", overwrite=True)) as writer:
            for frame in reader:
                writer.write(frame.rgb, frame.pts)
        if not count:
            raise RuntimeError("no frame, and no error")
    except SelfHVDError as error:
        if not error.hint or "\n" in error.message + error.hint:
            raise RuntimeError(f"not for a user: {error.message!r} {error.hint!r}") from error
        return int(error.exit_code)
    return 0


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


def in_child(source: Path, output: Path, command: bool) -> tuple[str, int]:
    """``ok`` and the exit code, or what went wrong; in a forked process, which may hang or crash."""
    import signal

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(LIMIT_S)
        text = b""
        try:
            text = f"ok {judge(source, output, command)}".encode()
        except BaseException:  # noqa: BLE001 - counted by the parent
            text = traceback.format_exc().encode()
        os.write(writing, text[-60_000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ("hang" if number == signal.SIGALRM else f"crash by signal {number}"), -1
    return ("ok", int(text[3:])) if text.startswith("ok ") else ("traceback: " + text, -1)


def run(containers: tuple[str, ...], count: int, command: bool, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Outcomes by container and exit code, and a line for everything that must not be."""
    from tests.mutations import mutate

    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        whole = {c: make(Path(name), c).read_bytes() for c in containers}
        folder = Path(name) / "work"
        folder.mkdir()
        for seed in range(first, first + count):
            container = containers[seed % len(containers)]
            source, output = folder / f"mutant.{container}", folder / "out.mkv"
            source.write_bytes(mutate(whole[container], seed))
            what, code = in_child(source, output, command)
            outcomes[f"{container} exit {code}" if what == "ok" else f"{container} {what.split(':')[0]}"] += 1
            where = f"{container} seed {seed}"
            if what != "ok":
                wrong.append(f"{where}: {what}")
            elif code not in ALLOWED:
                wrong.append(f"{where}: exit code {code}")
            if what == "ok" and (code == 0) != output.exists():
                wrong.append(f"{where}: exit code {code}, but output {'there' if output.exists() else 'missing'}")
            if output.exists() and not complete(output):
                wrong.append(f"{where}: the output is not complete")
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
    print(f"{sum(outcomes.values())} mutants, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
