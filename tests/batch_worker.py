"""Stands in for the process of one video: what it does is written in the video's file."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def tell(event: str, **body: object) -> None:
    print(json.dumps({"event": event, **body}), flush=True)


def stay_until_closed() -> None:
    while os.read(0, 1):
        pass
    Path(request["output"]).with_suffix(".interrupted").touch()
    tell("error", message="interrupted", hint="", exit_code=130)
    os._exit(130)


line = b""
while not line.endswith(b"\n"):
    line += os.read(0, 65536)
request = json.loads(line)
kind, _, rest = Path(request["video"]).read_text().partition(" ")
tell("progress", phase="scan", done=1, total=2, unit="frames", values=[["loss", 0.5]])
if kind == "good":
    tell("note", text="a note", level="warning")
    Path(request["output"]).write_text(rest + json.dumps(request["settings"]["adaptation"]["iters"]))
    tell("plan", rows=[["video", "small"]], minutes=None, times=[])
    tell("finished", output=request["output"], seconds=1.5, rows=[], action="adapted")
elif kind == "half":
    Path(request["output"]).write_text(rest)
    tell("finished", output=request["output"], seconds=1.5, rows=[], action="adapted")
    tell("error", message="the report cannot be written", hint="", exit_code=6)
    sys.exit(6)
elif kind == "error":
    tell("error", message="no frame could be decoded", hint="Copy it again.", exit_code=1)
    sys.exit(1)
elif kind == "raise":
    raise RuntimeError("some library broke")
elif kind == "kill":
    os.kill(os.getpid(), getattr(signal, rest))
elif kind == "silent":
    print("not json", flush=True)
elif kind == "slow":
    threading.Thread(target=stay_until_closed, daemon=True).start()
    time.sleep(60)
elif kind == "once":
    # Works until it is killed; whoever takes over finds what it left in the job directory.
    output = Path(request["output"])
    job = output.parent / f".{output.name}.job"
    if not (job / "step").exists():
        job.mkdir(exist_ok=True)
        (job / "step").write_text("half")
        tell("progress", phase="stage 1", done=1, total=2, unit="steps", values=[])
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
        time.sleep(60)
        os._exit(9)  # nobody killed it
    output.write_text(f"{rest} continued from {(job / 'step').read_text()}")
    (job / "step").unlink()
    job.rmdir()
    tell("finished", output=request["output"], seconds=1.5, rows=[], action="adapted")
elif kind == "meet":
    # Ends only if the other one runs at the same time.
    mine, other = (Path(request["video"]).parent / name for name in rest.split())
    mine.touch()
    while not other.exists():
        time.sleep(0.01)
    Path(request["output"]).write_text(os.environ.get("OMP_NUM_THREADS", ""))
    tell("finished", output=request["output"], seconds=1.0, rows=[], action="adapted")
