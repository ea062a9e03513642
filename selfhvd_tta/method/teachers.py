"""The teachers of a frame: the sharp frames around it, in which order, and how much each of them counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfhvd_tta.method.clues import Clues
from selfhvd_tta.settings import AlignmentSettings

# Frames of distance that a teacher e times as sharp may lie further away.
SHARPNESS_IN_FRAMES = 4.0


@dataclass(frozen=True)
class Teachers:
    """The teachers of one frame.

    Attributes:
        index: the frame.
        others: sharp frames within the shot, best first; empty for a frame that stands for itself.
        weights: of each of them, in (0, 1]: its score over that of the sharpest, to a power.
        own: weight of the frame itself among them; 0 for a blurry one.
        equal: the frame is about as sharp as its teachers. They may average its noise away, no more: it is an anchor
            for the network, and where a teacher differs from it, the frame is right.
    """

    index: int
    others: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    own: float = 0.0
    equal: bool = False


def choose_teachers(index: int, clues: Clues, settings: AlignmentSettings) -> Teachers:
    """The sharp frames to learn frame ``index`` from, best first: near in time, and sharp.

    Otsu's threshold also selects frames that are much less sharp than others near them. With more than one
    teacher, every frame learns from the sharp ones around it, these count by their sharpness, and a sharp frame is one
    of its own teachers. With one, every sharp frame stands for itself, as the paper has it.

    Args:
        index: frame to be labelled.
        clues: of the video.
        settings: number of teachers, their reach and their weights.

    Returns:
        At most ``settings.teachers`` others.
    """
    near = [j for j in clues.sharp_in(clues.shot_of(index)) if j != index]
    near = [j for j in near if abs(j - index) <= settings.teacher_reach]
    is_sharp = bool(clues.sharp[index])
    if is_sharp and (settings.teachers == 1 or not near):
        return Teachers(index, own=1.0, equal=True)
    first = min(near, key=lambda j: abs(j - index)) if is_sharp else int(clues.nearest[index])
    ranked = _in_turns(index, first, [j for j in near if j != first], clues)[: settings.teachers]
    best = max(float(clues.score[j]) for j in ([index, *ranked] if is_sharp else ranked)) + 1e-9
    mine = float(clues.score[index]) / best
    equal = is_sharp and mine >= settings.equal_sharpness
    if equal:
        ranked = ranked[: _for_noise(settings.teachers)]
    return Teachers(
        index,
        tuple(ranked),
        tuple(max(float(clues.score[j]) / best, 1e-3) ** settings.sharpness_power for j in ranked),
        settings.own_weight * mine**settings.sharpness_power if is_sharp else 0.0,
        equal,
    )


def most_alignments(frames: int, blurry: int, teachers: int) -> int:
    """How many pairs of frames are aligned at most when every frame of a video meets its teachers once.

    Args:
        frames: of the video.
        blurry: of them, those that are no clues.
        teachers: ``AlignmentSettings.teachers``.
    """
    return blurry * teachers + (frames - blurry) * (_for_noise(teachers) if teachers > 1 else 0)


def _for_noise(teachers: int) -> int:
    """For averaging noise, half of the teachers do nearly as well."""
    return -(-teachers // 2)


def _in_turns(index: int, first: int, others: list[int], clues: Clues) -> list[int]:
    """``first``, then the others by distance and sharpness.

    A frame on the other side in time sees what the nearest one has covered, so sides take turns.
    """
    best = max(float(clues.score[j]) for j in [first, *others]) + 1e-9

    def cost(j: int) -> float:
        return abs(j - index) - SHARPNESS_IN_FRAMES * float(np.log(clues.score[j] / best + 1e-9))

    before = sorted((j for j in others if j < index), key=cost)
    after = sorted((j for j in others if j > index), key=cost)
    sides = [after, before] if first < index else [before, after]
    ranked = [first]
    while sides[0] or sides[1]:
        if sides[0]:
            ranked.append(sides[0].pop(0))
        sides.reverse()
    return ranked
