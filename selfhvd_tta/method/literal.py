"""The paper to the letter (``--literal``): Eq. 3-14 as printed, without our additions."""

from __future__ import annotations

import torch
from torch import Tensor

from selfhvd_tta.events import Listener, Note
from selfhvd_tta.method.alignment import align
from selfhvd_tta.method.labels import Rows, stacked
from selfhvd_tta.method.live import LiveSupervision
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.sampling import Draw, draw_clips
from selfhvd_tta.method.sevd import supervision_is_label
from selfhvd_tta.method.sharpness import sharpness
from selfhvd_tta.method.state import AdaptationState
from selfhvd_tta.method.supervision import Inputs, Lesson
from selfhvd_tta.settings import LITERAL_FLOW, Settings


class LiteralSupervision(LiveSupervision):
    """One teacher per frame, the nearest sharp frame of the position, aligned to the step's own output there.

    What differs from :class:`LiveSupervision`: labels are bilinear; sharp frames are aligned like all others and count
    like them; v_l is taken over all pixels (Eq. 8); labels belong to the position of the clip before its sharp frames
    were removed, and are aligned to the output of the degraded clip there (Eq. 7); the model that supervises sees the
    clip turned as the one that learns does.
    """

    def __init__(
        self, inputs: Inputs, settings: Settings, state: AdaptationState, pace: Pace, listen: Listener
    ) -> None:
        super().__init__(inputs, settings, state, pace, listen)
        flow, _, _ = settings.alignment.flow.partition(":")
        if flow != LITERAL_FLOW:
            listen(Note(f"--literal with flow {flow}; the paper aligns by {LITERAL_FLOW}"))

    def lesson(self, stage2: bool) -> Lesson:
        """Clips, and labels from the output of the step itself."""
        plan, inputs = self.settings.adaptation, self.inputs
        draws = draw_clips(inputs.working, plan, self.state.rng, degrade=stage2 and plan.rscr)
        outputs, historical = None, None
        if stage2:  # in stage 1, the step's own output is R
            complete = [d.turned(inputs.working.shown(d.rows, d.box, inputs.compute.device)) for d in draws]
            outputs, historical = self.outputs(torch.stack(complete), stage2)

        def terms(output: Tensor) -> dict[str, Tensor]:
            student = output.detach().clamp(0, 1)
            teacher = student if outputs is None else outputs
            old = [None] * len(draws) if historical is None else list(historical)
            rows = [self._rows_of(*each) for each in zip(draws, student, teacher, old, strict=True)]
            weight = output.new_ones(output.shape[:2])
            return objective(output, stacked(rows), weight, inputs.perceive, plan, stage2)

        return Lesson(self.clip(draws), terms)

    @torch.no_grad()
    def _rows_of(self, draw: Draw, student: Tensor, teacher: Tensor, historical: Tensor | None) -> Rows:
        """Supervision of one clip, turned as the network has seen it.

        Args:
            draw: the clip.
            student: its output for the clip as shown, (T, 3, h, w) in [0, 1].
            teacher: R, its output for the complete clip.
            historical: R^e of the complete clip.
        """
        working = self.inputs.working
        sharp_rows = [int(working.clues.nearest[row]) for row in draw.rows]
        sharp = draw.turned(working.shown(sharp_rows, draw.box, student.device))
        aligned = align(sharp, student, self.inputs.estimator, self.settings.alignment, "bilinear")
        index = [draw.rows.index(row) for row in draw.shown]
        visible = aligned.occlusion.mean(dim=(1, 2, 3))
        return Rows(
            label=aligned.image,
            mask=aligned.mask,
            teacher=teacher[index],
            choice=supervision_is_label(
                visible,
                sharpness(aligned.image),
                sharpness(teacher[index]),
                self.settings.adaptation.sis_threshold,
            ),
            visible=visible,
            historical=None if historical is None else historical[index],
        )
