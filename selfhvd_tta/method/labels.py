"""The label bank: for every frame of the working set its label, mask and teacher outputs, renewed every K steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method import transfer
from selfhvd_tta.method.sevd import supervision_is_label
from selfhvd_tta.method.sharpness import sharpness
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.method.working_set import WorkingSet
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
        sharps = [observed(j) for j in teachers.others]
        composite = transfer.compose(frame, now, sharps, teachers, estimator, settings)
        for _ in range(settings.rounds - 1):
            composite = transfer.compose(frame, transfer.apply(composite, now), sharps, teachers, estimator, settings)
        visible = composite.occlusion.mean(dim=(1, 2, 3))
        choice = _selected(visible, composite.image, composite.mask, now, sis_threshold)
        yield Rows(composite.image, composite.mask, now, choice, visible)


def _selected(visible: Tensor, label: Tensor, mask: Tensor, now: Tensor, threshold: float) -> Tensor:
    """SIS for one row: (1,) bool."""
    return supervision_is_label(visible, sharpness(label, mask), sharpness(now, mask), threshold)


class LabelBank:
    """Labels of the whole working set, compact, on the device or in host memory.

    Images are kept as uint8 (labels) and float16 (network outputs, whose small differences matter), masks as uint8.

    Args:
        working: the frames.
        device: where rows are handed out.
        store: where the bank lies.
    """

    def __init__(self, working: WorkingSet, device: torch.device, store: torch.device) -> None:
        count, _, height, width = working.frames.shape
        self.working = working
        self.device = device
        self.frames = working.frames.to(store)
        self.label = torch.zeros((count, 3, height, width), dtype=torch.uint8, device=store)
        self.mask = torch.zeros((count, 1, height, width), dtype=torch.uint8, device=store)
        self.teacher = torch.zeros((count, 3, height, width), dtype=torch.float16, device=store)
        self.historical: Tensor | None = None
        self.choice = torch.zeros(count, dtype=torch.bool, device=device)
        self.coverage = torch.zeros(count, device=device)
        self.visible = torch.zeros(count, device=device)
        self.lasting = False

    def observed(self, row: int) -> Tensor:
        """B of one row: (1, 3, H, W) float in [0, 1] on the device."""
        return self.frames[row : row + 1].to(self.device).float() / 255

    def current(self, row: int) -> Tensor:
        """R of one row: (1, 3, H, W) float in [0, 1] on the device."""
        return self.teacher[row : row + 1].to(self.device).float()

    def refresh(
        self,
        outputs: Iterator[tuple[int, Tensor]],
        estimator: FlowEstimator,
        settings: AlignmentSettings,
        sis_threshold: float,
        tick: Callable[[int], None],
    ) -> None:
        """Renew everything but the historical outputs; where the flow explains blur, labels are made only once.

        Args:
            outputs: row and R of every frame, (3, H, W) in [0, 1].
            estimator: optical flow.
            settings: masks and teachers.
            sis_threshold: tau.
            tick: told the number of frames labelled so far.
        """
        self.take_outputs(outputs)
        every = range(len(self.working))
        if not self.lasting:
            made_rows = make_rows(every, self.working, self.observed, self.current, estimator, settings, sis_threshold)
            for row, made in zip(every, made_rows, strict=True):
                self.label[row] = (made.label[0] * 255).round().clamp(0, 255).to(torch.uint8)
                self.mask[row] = (made.mask[0] * 255).round().to(torch.uint8)
                self.choice[row] = made.choice[0]
                self.coverage[row] = made.mask.mean()
                self.visible[row] = made.visible[0]
                tick(row + 1)
        if not estimator.explains_blur:
            return
        # Labels made from the recorded frames last. What they are compared with does not; and as a run that is resumed
        # makes them anew, the comparison is always with the label as it is kept.
        self.lasting = True
        for row in every:
            if self.visible[row] <= 1:
                label, mask = (stack[row : row + 1].to(self.device).float() / 255 for stack in (self.label, self.mask))
                seen = self.visible[row : row + 1]
                self.choice[row] = _selected(seen, label, mask, self.current(row), sis_threshold)[0]

    def take_outputs(self, outputs: Iterator[tuple[int, Tensor]]) -> None:
        """Let these be the present outputs R: row and (3, H, W) in [0, 1] of every frame."""
        for row, output in outputs:
            self.teacher[row] = output.to(self.teacher.device, torch.float16)

    def take_history(self) -> None:
        """Let the present outputs become R^e."""
        self.historical = self.teacher.clone()

    def shown(self, rows: Sequence[int], box: tuple[int, int, int, int]) -> Tensor:
        """Input frames, cropped: (n, 3, h, w) float in [0, 1] on the device; box = top, left, height, width."""
        return self._crop(self.frames, rows, box).float() / 255

    def rows(self, rows: Sequence[int], box: tuple[int, int, int, int]) -> Rows:
        """What supervises some rows, cropped; box = top, left, height, width."""
        index = on_device(rows, self.device)
        return Rows(
            label=self._crop(self.label, rows, box).float() / 255,
            mask=self._crop(self.mask, rows, box).float() / 255,
            teacher=self._crop(self.teacher, rows, box).float(),
            choice=self.choice[index],
            visible=self.visible[index],
            historical=None if self.historical is None else self._crop(self.historical, rows, box).float(),
        )

    def _crop(self, stack: Tensor, rows: Sequence[int], box: tuple[int, int, int, int]) -> Tensor:
        top, left, height, width = box
        region = stack[:, :, top : top + height, left : left + width]
        crop = region.index_select(0, on_device(rows, stack.device))
        return crop if stack.device == self.device else unhurried(crop, self.device)


def on_device(numbers: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Whole numbers as a tensor on the device, without waiting for it."""
    return unhurried(torch.tensor(numbers), device)


def unhurried(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; a GPU is not waited for, which copying from pageable memory would do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
