"""One video in, the same video without shake blur out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from selfhvd_tta import feeds, models, planning, resources
from selfhvd_tta.errors import DeviceError, PreconditionError
from selfhvd_tta.events import Event, Finished, Listener, Note, Progress, ignore
from selfhvd_tta.inspection import Inspection, scan
from selfhvd_tta.method import transfer
from selfhvd_tta.method.adaptation import Adaptation, Record
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.restoration import Compute, Restorer, is_out_of_memory
from selfhvd_tta.method.working_set import WorkingSet, choose_frames, restrict
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.opening import Reader, Writer, open_reader, open_writer
from selfhvd_tta.video.passthrough import pass_through
from selfhvd_tta.video.writer import check_output

Frames = Iterator[Tensor]
Blend = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Result:
    """What :func:`deblur` did.

    Attributes:
        output: path of the finished video.
        frames: number of its frames, equal to the input's.
        action: ``adapted``, ``restored`` (backbone alone), ``transferred`` or ``passed through``.
        clues: sharp frames and shots.
        record: steps and checks of the adaptation, if there was one.
        seconds: duration of the run.
        notes: every line the user was told.
    """

    output: Path
    frames: int
    action: str
    clues: Clues
    record: Record | None
    seconds: float
    notes: tuple[str, ...] = field(default=())


def deblur(path: str | Path, output: str | Path, settings: Settings | None = None, listen: Listener = ignore) -> Result:
    """Make a shaky, blurry video sharp.

    Args:
        path: input video; it is only read.
        output: where the result goes; nothing is there until it is complete.
        settings: all settings; None for the defaults.
        listen: gets progress, notes and the plan as they come.

    Returns:
        What was done.

    Raises:
        SelfHVDError: one of its subclasses, see ``errors.py``; the output is then absent or as it was before.
    """
    started = time.monotonic()
    settings = settings or Settings()
    notes: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        listen(event)

    reader = open_reader(path)
    check_output(output, reader.info, settings.output)
    seen = scan(reader, settings.clues, tell)
    if seen.helpful or settings.force or (settings.method == "adapt" and settings.adaptation.iters == 0):
        action, record = _restore(reader, Path(output), seen, settings, tell)
    else:
        if settings.strict:
            raise PreconditionError(f"{path}: {seen.verdict}", "Use --force to adapt to it all the same.")
        tell(Note(f"passed through unchanged: {seen.verdict} (--force adapts all the same)", "warning"))
        for text in pass_through(reader, Path(output), settings.output):
            tell(Note(text))
        action, record = "passed through", None
    seconds = time.monotonic() - started
    tell(Finished(str(output), seconds, planning.summary(seen, action, record)))
    return Result(Path(output), len(seen.pts), action, seen.clues, record, seconds, tuple(notes))


def _restore(
    reader: Reader, output: Path, seen: Inspection, settings: Settings, tell: Listener
) -> tuple[str, Record | None]:
    device = models.choose_device(settings.runtime.device, tell)
    flow = models.load_flow(settings, device, tell)
    if settings.method == "transfer":
        tell(planning.plan(seen, settings, flow, None, Compute(device), 0))
        blend: Blend | None = _blender(reader, seen.clues, flow, settings, device)
        with open_writer(output, reader, settings.output) as writer:
            _write(reader, seen, writer, device, lambda frames: frames, blend, "transfer", tell)
        _tell_notes(writer, tell)
        return "transferred", None
    loaded = models.load_backbone(settings, device, tell)
    compute = models.choose_compute(settings, device, loaded.backbone)
    height, width = reader.info.height, reader.info.width
    window = settings.runtime.window or resources.window_for(height, width, device, loaded.backbone.reach)
    record = None
    limit = resources.working_set_limit(height, width, settings.adaptation.working_set)
    numbers = choose_frames(seen.clues, limit, settings.clues.segment)
    tell(planning.plan(seen, settings, flow, loaded, compute, len(numbers)))
    if settings.adaptation.iters:
        features = models.load_features(settings, device, tell)
        clues, runs = restrict(seen.clues, numbers)
        store = resources.bank_store(height, width, len(numbers), device)
        working = WorkingSet(feeds.load_frames(reader, numbers).to(store), tuple(numbers), clues, runs)
        adaptation = Adaptation(
            loaded.network, loaded.backbone, working, flow.estimator, features, compute, settings, tell, window
        )
        try:
            record = adaptation.run()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"not enough memory on {device} to adapt {loaded.name}",
                "Lower --clip-length, --crop, --batch or --working-set, or take a smaller backbone.",
            ) from error
        del adaptation, working
        if settings.save_adapted is not None:
            models.save_adapted(loaded, settings.save_adapted, str(reader.info.path), len(record.steps))
            tell(Note(f"adapted weights saved as {settings.save_adapted}"))
    restorer = Restorer(loaded.network, loaded.backbone, compute, window, lambda text: tell(Note(text, "warning")))
    adapted = record is not None or settings.adapted is not None
    blend = _blender(reader, seen.clues, flow, settings, device) if settings.detail and adapted else None
    with open_writer(output, reader, settings.output) as writer:
        _write(reader, seen, writer, device, restorer.restore, blend, "restore", tell)
    _tell_notes(writer, tell)
    return ("adapted" if adapted else "restored"), record


def _write(
    reader: Reader,
    seen: Inspection,
    writer: Writer,
    device: torch.device,
    network: Callable[[Frames], Frames],
    blend: Blend | None,
    phase: str,
    tell: Listener,
) -> None:
    """Stream the video shot by shot through the network, blend sharp details in, write."""
    inflight = feeds.Inflight(iter(reader), device)
    for shot in seen.clues.shots:
        for index, out in zip(shot, network(inflight.feed(len(shot))), strict=True):
            frame = inflight.collect()
            if blend is not None:
                out = blend(index, feeds.to_tensor(frame.rgb, device)[None], out[None])[0]
            writer.write(feeds.to_array(out), frame.pts)
            tell(Progress(phase, index + 1, len(seen.pts)))


def _blender(reader: Reader, clues: Clues, flow: models.LoadedFlow, settings: Settings, device: torch.device) -> Blend:
    """Sharp-detail transfer for one frame after the other: (index, input, current) -> blended, (1, 3, H, W)."""
    align = settings.alignment
    ahead = feeds.SharpFeed(
        iter(open_reader(reader.info.path)), clues, max(align.teacher_reach, 2 * settings.clues.segment)
    )

    def blend(index: int, observed: Tensor, current: Tensor) -> Tensor:
        ranked = transfer.rank_teachers(index, clues, align)
        if ranked == [index]:
            return current
        sharps = [ahead.get(j, index, device) for j in ranked]
        out = current
        for _ in range(align.rounds):
            out = transfer.apply(transfer.compose(observed, out, sharps, flow.estimator, align), current)
        return out

    return blend


def _tell_notes(writer: Writer, tell: Listener) -> None:
    for text in writer.notes:
        tell(Note(text))
