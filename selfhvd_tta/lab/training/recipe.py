"""What a pretraining run is told: data, network, loss, schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from selfhvd_tta.errors import UsageError

SLOWEST = 0.3  # factor on the speed of the shake at the beginning of a curriculum


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run.

    Attributes:
        data: folders of photographs, of clips, or data sets of pairs (see :mod:`selfhvd_tta.lab.training.sources`).
        output: folder of the run: ``checkpoint.pt``, ``log.jsonl``, ``run.json`` and ``pool/``.
        backbone: id of the backbone.
        variant: its variant; None: the default one.
        initial: weights to start a new run from: ``.safetensors``, the checkpoint of another run, or ``bundled``.
        steps: optimiser steps at most.
        budget: seconds of training at most, all resumed parts together; None: no limit.
        crop: side of the training crops in pixels.
        clip_length: frames per training clip; 1 for networks that see one picture at a time.
        batch: clips per step and process.
        accumulate: parts that a step's batch is split into, one after the other, to save memory.
        learning_rate: of Muon and Adam, after the warm-up. Small networks learned two to four times as much at 0.006 as
            at 0.002 in the same time; 0.018 was too much.
        final_learning_rate: rate that the cosine ends at.
        warmup: steps of linear warm-up.
        softness: error, in units of white, up to which the loss is quadratic. At 0.001 (L1) most of the gradient came
            from noise and compression that nothing can undo: half the gain on severe blur after equally many steps.
        frequency: weight of the distance between the Fourier transforms; 0: not computed.
        curriculum: steps over which the speed of simulated shake grows to its full range; 0: full from the start.
        gradient_clip: largest norm of the gradient.
        ema: decay of the moving average per step.
        pool: clips kept at a time.
        renewal: steps after which one of them is renewed; 0: never.
        clip_size: height and width of the clips in the pool.
        clip_frames: length of the clips in the pool.
        gamma_blur: take GoPro's ``blur_gamma`` pictures instead of ``blur``.
        seed: of weights and data.
        precision: of the forward pass.
        device: torch device; with several processes on CUDA each takes its own.
        workers: processes that make clips ahead, per training process; 0: they are made when they are needed.
        keep_in_memory: hold the pool on the device; None: on CUDA.
        validate_every: steps between two validations; 0: only at the end.
        checkpoint_every: seconds between two checkpoints.
    """

    data: tuple[Path, ...]
    output: Path
    backbone: str = "estrnn"
    variant: str | None = None
    initial: Path | None = None
    steps: int = 200_000
    budget: float | None = None
    crop: int = 96
    clip_length: int = 8
    batch: int = 1
    accumulate: int = 1
    learning_rate: float = 6e-3
    final_learning_rate: float = 1e-5
    warmup: int = 50
    softness: float = 0.05
    frequency: float = 0.0
    curriculum: int = 0
    gradient_clip: float = 0.5
    ema: float = 0.995
    pool: int = 500
    renewal: int = 20
    clip_size: int = 160
    clip_frames: int = 14
    gamma_blur: bool = False
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    workers: int = 0
    keep_in_memory: bool | None = None
    validate_every: int = 1000
    checkpoint_every: float = 120.0

    def __post_init__(self) -> None:
        for name in ("steps", "crop", "clip_length", "batch", "accumulate", "pool", "learning_rate", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, but it must be positive")
        for name in ("frequency", "curriculum", "renewal", "workers"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, but it must not be negative")
        if self.crop > self.clip_size or self.clip_length > self.clip_frames:
            raise UsageError(
                f"crops of {self.clip_length} frames at {self.crop} px do not fit into clips of "
                f"{self.clip_frames} frames at {self.clip_size} px",
                "Make the clips larger.",
            )
        if self.batch % self.accumulate:
            raise UsageError(f"a batch of {self.batch} cannot be split into {self.accumulate} equal parts")
        if self.curriculum and not self.renewal:
            raise UsageError("a curriculum needs clips that are renewed", "Give a renewal above 0, or no curriculum.")

    def pace(self, number: int) -> float:
        """Factor on the speed of simulated shake in clip ``number`` of the pool, by the step at which it comes in."""
        if not self.curriculum:
            return 1.0
        enters = max(number - self.pool + 1, 0) * self.renewal
        return SLOWEST + (1 - SLOWEST) * min(enters / self.curriculum, 1.0)


class Annealed(Protocol):
    """What a run's learning rate follows from."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def final_learning_rate(self) -> float: ...

    @property
    def warmup(self) -> int: ...


def learning_rate(config: Annealed, step: int, done: float) -> float:
    """Linear warm-up, then a cosine over the share of the run that is done (of its steps or of its time)."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    span = config.learning_rate - config.final_learning_rate
    return (config.final_learning_rate + span * cosine) * min(1.0, (step + 1) / max(config.warmup, 1))


def restoration_loss(output: Tensor, target: Tensor, softness: float, frequency: float = 0.0) -> Tensor:
    """Charbonnier distance ``sqrt(e^2 + softness^2) - softness``: quadratic below ``softness``, linear above it.

    Args:
        output: (..., H, W).
        target: likewise.
        softness: see above.
        frequency: weight of the mean absolute difference of the (orthonormal) Fourier coefficients of each plane, real
            and imaginary parts apart (as Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring",
            ICCV 2021); 0: none.
    """
    error = output - target
    loss = (error * error + softness**2).sqrt().mean() - softness
    if frequency:
        loss = loss + frequency * torch.view_as_real(torch.fft.rfft2(error, norm="ortho")).abs().mean()
    return loss
