"""The label bank: for every frame of the working set its label, mask and teacher outputs, renewed every K steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method import transfer
from selfhvd_tta.method.composite import apply
from selfhvd_tta.method.sampling import Draw
from selfhvd_tta.method.sevd import supervision_is_label
from selfhvd_tta.method.sharpness import sharpness
from selfhvd_tta.method.teachers import Teachers, choose_teachers
from selfhvd_tta.method.working_set import Box, WorkingSet, cropped, on_device
from selfhvd_tta.settings import AlignmentSettings

Fetch = Callable[[int], Tensor]


@dataclass
class Rows:
    """What supervises some frames; n rows.

    Attributes:
        label: S_{J->k}, (n, 3, h, w) float in [0, 1].
        mask: M, (n, 1, h, w) float in [0, 1].
        teacher: R_k, (n, 3, h, w) float in [0, 1].
        choice: (n,) bool, True where SIS lets the label supervise.
        visible: (n,) mean of M_occ; 2 for a frame that is its own label, which then always supervises.
        historical: R^e_k like ``teacher``, or None before stage 2.
    """

    label: Tensor
    mask: Tensor
    teacher: Tensor
    choice: Tensor
    visible: Tensor
    historical: Tensor | None = None

    def turned(self, draw: Draw) -> Rows:
        """Rotated and mirrored like the clip."""
        return replace(
            self,
            label=draw.turned(self.label),
            mask=draw.turned(self.mask),
            teacher=draw.turned(self.teacher),
            historical=None if self.historical is None else draw.turned(self.historical),
        )


def stacked(clips: Sequence[Rows]) -> Rows:
    """Rows of B clips of equal size as one, every tensor with a leading axis B."""
    historical = [rows.historical for rows in clips if rows.historical is not None]
    return Rows(
        label=torch.stack([rows.label for rows in clips]),
        mask=torch.stack([rows.mask for rows in clips]),
        teacher=torch.stack([rows.teacher for rows in clips]),
        choice=torch.stack([rows.choice for rows in clips]),
        visible=torch.stack([rows.visible for rows in clips]),
        historical=torch.stack(historical) if historical else None,
    )


def make_rows(
    rows: Sequence[int],
    working: WorkingSet,
    observed: Fetch,
    current: Fetch,
    estimator: FlowEstimator,
    settings: AlignmentSettings,
    sis_threshold: float,
) -> Iterator[Rows]:
    """Labels for some frames, one at a time, on whatever region the two functions fetch.

    Args:
        rows: which frames.
        working: gives the clues.
        observed: row -> B, (1, 3, h, w) in [0, 1]; also asked for the sharp frames.
        current: row -> R, (1, 3, h, w) in [0, 1].
        estimator: optical flow.
        settings: masks and number of teachers.
        sis_threshold: tau.

    Yields:
        One :class:`Rows` of one row per frame. A frame without a better one is its own label, with a mask of 1.
    """
    for row in rows:
        frame, now = observed(row), current(row)
        teachers = choose_teachers(row, working.clues, settings)
        if not teachers.others:
            one = torch.ones_like(frame[:, :1])
            chosen = torch.ones(1, dtype=torch.bool, device=frame.device)
            yield Rows(frame, one, now, chosen, torch.full((1,), 2.0, device=frame.device))
            continue
        yield _label(frame, now, (observed, teachers), estimator, settings, sis_threshold)


def _label(
    frame: Tensor,
    now: Tensor,
    learned_from: tuple[Fetch, Teachers],
    estimator: FlowEstimator,
    settings: AlignmentSettings,
    sis_threshold: float,
) -> Rows:
    """One row, made with as little as memory asks for."""
    (observed, teachers), economy = learned_from, estimator.economy

    def make() -> Rows:
        flow, recorded, current = economy.module(estimator), economy.placed(frame), economy.placed(now)
        sharps = [economy.placed(observed(j)) for j in teachers.others]
        composite = transfer.compose(recorded, current, sharps, teachers, flow, settings)
        for _ in range(settings.rounds - 1):
            composite = transfer.compose(recorded, apply(composite, current), sharps, teachers, flow, settings)
        visible = composite.occlusion.mean(dim=(1, 2, 3))
        choice = _selected(visible, composite.image, composite.mask, current, sis_threshold)
        parts = (composite.image, composite.mask, current, choice, visible)
        return Rows(*(part.to(frame.device) for part in parts))

    return economy.run(make, "making labels", frame.device)


def _selected(visible: Tensor, label: Tensor, mask: Tensor, now: Tensor, threshold: float) -> Tensor:
    """SIS for one row: (1,) bool."""
    return supervision_is_label(visible, sharpness(label, mask), sharpness(now, mask), threshold)


class LabelBank:
    """Labels of the whole working set, stored compactly next to its frames; each is made when it is first needed.

    Images are kept as uint8 (labels) and float16 (network outputs, whose small differences matter), masks as uint8.
    A label depends on the recorded frames and the outputs of the last refresh alone, so when it is made does not
    matter; and labels of frames that no clip shows until the next refresh are never made.

    Args:
        working: the frames.
        device: where rows are handed out.
        estimator: optical flow.
        settings: masks and teachers.
        sis_threshold: tau.

    Attributes:
        made: (N,) whether a row has the label that the last refresh asks for.
        has_outputs: outputs R were given.
    """

    def __init__(
        self,
        working: WorkingSet,
        device: torch.device,
        estimator: FlowEstimator,
        settings: AlignmentSettings,
        sis_threshold: float,
    ) -> None:
        count, _, height, width = working.frames.shape
        self.working = working
        self.device = device
        self.estimator = estimator
        self.settings = settings
        self.sis_threshold = sis_threshold
        store = working.frames.device
        self.label = torch.zeros((count, 3, height, width), dtype=torch.uint8, device=store)
        self.mask = torch.zeros((count, 1, height, width), dtype=torch.uint8, device=store)
        self.teacher = torch.zeros((count, 3, height, width), dtype=torch.float16, device=store)
        self.historical: Tensor | None = None
        self.choice = torch.zeros(count, dtype=torch.bool, device=device)
        self.coverage = torch.zeros(count, device=device)
        self.visible = torch.zeros(count, device=device)
        self.made = [False] * count
        self.judged = [False] * count
        self.has_outputs = False

    @property
    def lasting(self) -> bool:
        """Whether labels are made from the recorded frames, and so stay."""
        return self.estimator.explains_blur

    def observed(self, row: int) -> Tensor:
        """B of one row: (1, 3, H, W) float in [0, 1] on the device."""
        return self.working.observed(row, self.device)

    def current(self, row: int) -> Tensor:
        """R of one row: (1, 3, H, W) float in [0, 1] on the device; before there are outputs, the recorded frame."""
        return self.teacher[row : row + 1].to(self.device).float() if self.has_outputs else self.observed(row)

    def renew(self, outputs: Iterator[tuple[int, Tensor]] | None) -> None:
        """Base labels and choices on these outputs from now on; if the flow explains blur, labels stay.

        Args:
            outputs: row and R of every frame, (3, H, W) in [0, 1]. None where nothing is going to ask for R: neither
                the flow, nor (stage 2) SIS.
        """
        if outputs is None:
            assert self.lasting
            assert not self.has_outputs
        else:
            self.take_outputs(outputs)
        self.judged = [False] * len(self.judged)
        if not self.lasting:
            self.made = [False] * len(self.made)

    def complete(
        self, rows: Sequence[int], tick: Callable[[int], None] = lambda done: None, teachers: int | None = None
    ) -> None:
        """Make the labels that some rows lack.

        Args:
            rows: any order, repetitions allowed.
            tick: called after each label with the number of rows that have theirs.
            teachers: most teachers to use for now; labels of fewer than asked for do not count as made.
        """
        settings, final = self.settings, True
        if teachers is not None and teachers < settings.teachers:
            settings, final = replace(settings, teachers=teachers), False
        missing = [row for row in dict.fromkeys(rows) if not self.made[row]]
        made_rows = make_rows(
            missing, self.working, self.observed, self.current, self.estimator, settings, self.sis_threshold
        )
        for row, made in zip(missing, made_rows, strict=True):
            self.label[row] = (made.label[0] * 255).round().clamp(0, 255).to(torch.uint8)
            self.mask[row] = (made.mask[0] * 255).round().to(torch.uint8)
            self.choice[row] = made.choice[0]
            self.coverage[row] = made.mask.mean()
            self.visible[row] = made.visible[0]
            self.made[row] = final
            # A label that stays is always judged as stored, so that it does not matter when it was made.
            self.judged[row] = not self.lasting
            tick(sum(self.made))
        if not self.has_outputs:
            return
        for row in dict.fromkeys(rows):
            if not self.judged[row]:
                label, mask = (stack[row : row + 1].to(self.device).float() / 255 for stack in (self.label, self.mask))
                seen = self.visible[row : row + 1]
                chosen = _selected(seen, label, mask, self.current(row), self.sis_threshold)
                self.choice[row] = (chosen | (seen > 1))[0]
                self.judged[row] = True

    def to_host(self, working: WorkingSet) -> None:
        """From now on keep everything in host memory, where the frames of ``working`` lie."""
        self.working = working
        store = working.frames.device
        self.label, self.mask, self.teacher = (stack.to(store) for stack in (self.label, self.mask, self.teacher))
        self.historical = None if self.historical is None else self.historical.to(store)

    def take_outputs(self, outputs: Iterator[tuple[int, Tensor]]) -> None:
        """Store the current outputs R: row and (3, H, W) in [0, 1] of every frame."""
        for row, output in outputs:
            self.teacher[row] = output.to(self.teacher.device, torch.float16)
        self.has_outputs = True

    def take_history(self) -> None:
        """Make the current outputs R^e."""
        assert self.has_outputs
        self.historical = self.teacher.clone()

    def shown(self, rows: Sequence[int], box: Box) -> Tensor:
        """Input frames, cropped: (n, 3, h, w) float in [0, 1] on the device."""
        return self.working.shown(rows, box, self.device)

    def rows(self, rows: Sequence[int], box: Box) -> Rows:
        """Supervision of some complete rows, cropped; box = top, left, height, width."""
        index = on_device(rows, self.device)
        return Rows(
            label=self._crop(self.label, rows, box).float() / 255,
            mask=self._crop(self.mask, rows, box).float() / 255,
            teacher=self._crop(self.teacher, rows, box).float(),
            choice=self.choice[index],
            visible=self.visible[index],
            historical=None if self.historical is None else self._crop(self.historical, rows, box).float(),
        )

    def _crop(self, stack: Tensor, rows: Sequence[int], box: Box) -> Tensor:
        return cropped(stack, rows, box, self.device)
