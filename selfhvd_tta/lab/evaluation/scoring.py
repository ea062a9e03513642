"""Scores of one video, frame after frame, in memory that does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.evaluation.metrics.dadeblur import dadeblur_psnr, dadeblur_ssim
from selfhvd_tta.lab.evaluation.metrics.flicker import flicker
from selfhvd_tta.lab.evaluation.metrics.frames import FloatImage, Image, quantise
from selfhvd_tta.lab.evaluation.metrics.psnr import psnr
from selfhvd_tta.lab.evaluation.metrics.shift import ShiftMeter
from selfhvd_tta.lab.evaluation.metrics.ssim import ssim
from selfhvd_tta.lab.evaluation.metrics.warping import evaluation_flow, find_motion, warping_error
from selfhvd_tta.method.clues import laplacian_variance

NoReference = Callable[[Image], float]
# A frame equal to its ground truth has infinite PSNR; in means it counts as this.
MOST_PSNR = 100.0
# Of these measures the worst frame counts, and the worst video.
LEAST = ("worst_gain", "sharp_kept")


@dataclass(frozen=True)
class Fidelity:
    """How near one output frame is to its ground truth.

    Attributes:
        psnr: dB, standard definition, 8 bit.
        ssim: standard definition.
        dadeblur_psnr: dB, DADeblur's definition; compare only with DADeblur's and SelfHVD's tables that use it.
        dadeblur_ssim: DADeblur's definition.
    """

    psnr: float
    ssim: float
    dadeblur_psnr: float
    dadeblur_ssim: float


def fidelity(output: FloatImage, truth: Image) -> Fidelity:
    """All measures of one frame.

    Args:
        output: (H, W, 3) in [0, 1], as the method gives it.
        truth: (H, W, 3) uint8.
    """
    rounded = quantise(output)
    return Fidelity(
        psnr(rounded, truth), ssim(rounded, truth), dadeblur_psnr(output, truth), dadeblur_ssim(output, truth)
    )


def scored(count: int, skip: tuple[int, int]) -> range:
    """Frames of a video that count, with some left out at its ends.

    ESTRNN and DADeblur score without the first and last two frames, for which their network has no output.

    Args:
        count: frames of the video.
        skip: frames left out at the beginning and at the end.

    Raises:
        ValueError: nothing would be left, or a number is negative.
    """
    if min(skip) < 0 or sum(skip) >= count:
        raise ValueError(f"cannot leave out {skip[0]} + {skip[1]} frames of {count}")
    return range(skip[0], count - skip[1])


class Scorer:
    """Collects the measures of one method on one video.

    Args:
        counted: frames that count.
        sharp: for each frame of the video, whether it is sharp: means of sharp and of blurry frames are kept apart.
        temporal: measure warping error, flicker and shift too.
        no_reference: further measures of one frame, by name.
    """

    def __init__(
        self, counted: range, sharp: Sequence[bool], temporal: bool, no_reference: dict[str, NoReference] | None = None
    ) -> None:
        self.counted = counted
        self.sharp = sharp
        self.no_reference = no_reference or {}
        self.values: dict[str, list[float]] = {}
        self.flow = evaluation_flow() if temporal else None
        self.shift = ShiftMeter(self.flow) if self.flow is not None else None
        self.before: tuple[int, Image, Image] | None = None

    def add(self, index: int, output: FloatImage, observed: Image, truth: Image | None) -> None:
        """Take one frame.

        Args:
            index: its number.
            output: (H, W, 3) in [0, 1].
            observed: the input, (H, W, 3) uint8.
            truth: the ground truth, or None.

        Raises:
            InputError: the ground truth has another size than the input.
        """
        if index not in self.counted:
            self.before = None
            return
        if truth is not None:
            if truth.shape != observed.shape:
                raise InputError(
                    f"frame {index}: ground truth has {truth.shape[1]}x{truth.shape[0]} pixels, "
                    f"the input {observed.shape[1]}x{observed.shape[0]}",
                    "Check the data set.",
                )
            values = {name: min(value, MOST_PSNR) for name, value in asdict(fidelity(output, truth)).items()}
            for name, value in values.items():
                self._note(name, value)
            part = "sharp" if self.sharp[index] else "blurry"
            for name in ("psnr", "ssim"):
                self._note(f"{name}_{part}", values[name])
            if not self.sharp[index]:
                self._note("worst_gain", values["psnr"] - min(psnr(observed, truth), MOST_PSNR))
        rounded = quantise(output)
        if not self.sharp[index]:
            self._note("sharpness", laplacian_variance(np.asarray(cv2.cvtColor(rounded, cv2.COLOR_RGB2GRAY), np.uint8)))
        else:
            self._note("sharp_kept", min(psnr(rounded, observed), MOST_PSNR))
        for name, measure in self.no_reference.items():
            self._note(name, measure(rounded))
        if self.flow is not None and self.shift is not None:
            self.shift.add(rounded, observed)
            self._over_time(index, rounded, observed if truth is None else truth)

    def _over_time(self, index: int, output: Image, reference: Image) -> None:
        assert self.flow is not None
        if self.before is not None and self.before[0] == index - 1 and self.before[1].shape == output.shape:
            _, last_output, last_reference = self.before
            motion = find_motion(last_reference, reference, self.flow)
            self._note("warping_error", warping_error(last_output, output, motion))
            self._note("flicker", flicker((last_output, output), (last_reference, reference)))
        self.before = index, output, reference

    def _note(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self.values.setdefault(name, []).append(value)

    def result(self) -> dict[str, float]:
        """Means by name, of ``LEAST`` the least; what could not be measured is absent."""
        means = {name: min(values) if name in LEAST else float(np.mean(values)) for name, values in self.values.items()}
        if self.shift is not None and self.shift.counts.sum():
            means |= {"shift_median": self.shift.quantile(0.5), "shift_p95": self.shift.quantile(0.95)}
        return means
