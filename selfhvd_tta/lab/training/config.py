"""Configuration of training runs: one dataclass per training; the attributes' texts are the flags' help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selfhvd_tta.errors import UsageError

SLOWEST = 0.3  # factor on the speed of the shake at the beginning of a curriculum
Structure = Literal["proofreader", "raft-small"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What all training runs have in common.

    Attributes:
        output: Folder of the run; an existing run is continued.
        initial: Start a new run from these weights: .safetensors, checkpoint.pt of another run, or bundled.
        steps: Optimiser steps at most.
        budget: Seconds of training at most, over all parts of a run, without the making of data before it.
        crop: Side of the training crops in pixels.
        batch: Examples per step and process.
        learning_rate: Learning rate after the warm-up.
        final_learning_rate: Learning rate that the cosine ends at.
        warmup: Steps of linear warm-up.
        gradient_clip: Largest norm of the gradient.
        ema: Decay of the moving average per step.
        seed: Random seed of weights and data.
        precision: Precision of the forward pass.
        device: Torch device.
        workers: Processes that make data.
        validate_every: Steps between two validations; 0 validates at the end only.
        checkpoint_every: Seconds between two checkpoints.
    """

    output: Path
    initial: Path | None = None
    steps: int = 100_000
    budget: float | None = None
    crop: int = 128
    batch: int = 4
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup: int = 50
    gradient_clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    workers: int = 1
    validate_every: int = 500
    checkpoint_every: float = 120.0

    def __post_init__(self) -> None:
        self._positive("steps", "crop", "batch", "learning_rate", "gradient_clip")

    def _positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, but it must be positive")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Pretraining of a backbone.

    Attributes:
        data: Folders of sharp photographs or clips, to be shaken, or data sets of blurry and sharp videos.
        backbone: Id of the backbone.
        variant: Its variant. Default: the first one.
        clip_length: Frames of a training clip; 1 for networks of single pictures.
        accumulate: Parts that a batch is split into, one after the other, to save memory.
        softness: Error, in units of white, up to which the loss is quadratic.
        frequency: Weight of the loss between Fourier transforms; 0 leaves it out.
        curriculum: Steps over which simulated shake grows to full speed; 0 starts at full speed.
        pool: Clips in use at a time.
        renewal: Steps after which one of them is replaced; 0 keeps them.
        clip_size: Side of the clips that crops are cut from, in pixels.
        clip_frames: Frames of these clips.
        gamma_blur: Take GoPro's blur_gamma pictures instead of blur.
        keep_in_memory: Hold the pool on the device. Default: on CUDA.
    """

    data: tuple[Path, ...]
    backbone: str = "estrnn"
    variant: str | None = None
    steps: int = 200_000
    crop: int = 96
    clip_length: int = 8
    batch: int = 1
    accumulate: int = 1
    # Small networks learned two to four times as much at 0.006 as at 0.002 in the same time; 0.018 was too much.
    learning_rate: float = 6e-3
    # At 0.001 (L1) most of the gradient came from noise and compression that nothing can undo: half the gain on severe
    # blur after the same number of steps.
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
    workers: int = 0
    keep_in_memory: bool | None = None
    validate_every: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("clip_length", "accumulate", "pool")
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


@dataclass(frozen=True, kw_only=True)
class SimulatedClipsConfig(RunConfig):
    """Trainings on what is made once from a fixed number of simulated clips.

    Attributes:
        photos: Folders of sharp photographs.
        clips: Simulated clips that the data is made of.
        width: Width of these clips in pixels.
        height: Their height.
        frames: Their length.
    """

    photos: tuple[Path, ...]
    clips: int = 360
    width: int = 256
    height: int = 192
    frames: int = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("clips", "workers")
        if self.crop > min(self.width, self.height):
            raise UsageError(f"crops of {self.crop} px have to fit into clips of {self.width}x{self.height}")

    def photographs(self) -> tuple[list[Path], list[Path]]:
        """For training, and held out.

        Raises:
            UsageError: there are none.
        """
        from selfhvd_tta.lab.datasets.photos import list_photos, split_photos

        try:
            return split_photos(list_photos(self.photos))
        except (ValueError, OSError) as error:
            raise UsageError(str(error), "Give a folder of photographs.") from error


@dataclass(frozen=True, kw_only=True)
class FlowTrainingConfig(SimulatedClipsConfig):
    """Training of the network of the flow ``shake``.

    Attributes:
        crop: Side of the training crops in pixels, a multiple of 16.
        batch: Pairs per step, each in both directions.
        structure: proofreader is the network of --flow shake; raft-small is torchvision's RAFT, on the same pairs.
        pairs: Pairs tried per clip; each is learned in both directions.
        validation_pairs: Pairs per held-out photograph.
    """

    structure: Structure = "proofreader"
    pairs: int = 12
    validation_pairs: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("pairs")
        if self.crop % 16:
            raise UsageError(f"crops of {self.crop} px: they have to be a multiple of 16")


@dataclass(frozen=True, kw_only=True)
class MergeTrainingConfig(SimulatedClipsConfig):
    """Training of the merging network.

    Attributes:
        clips: Simulated clips that samples are made of, up to five each (6 MB).
        batch: Samples per step.
        backbone: Network whose outputs are merged with the sharp frames: id or id:variant.
        recorded: Share of samples with the frame as recorded in place of the backbone's output, as without a network.
    """

    clips: int = 600
    width: int = 192
    height: int = 192
    frames: int = 24
    crop: int = 96
    batch: int = 8
    learning_rate: float = 6e-3
    final_learning_rate: float = 1e-6
    gradient_clip: float = 0.5
    validate_every: int = 1000
    backbone: str = "relay:lite"
    recorded: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.recorded <= 1:
            raise UsageError(f"recorded is {self.recorded!r}, but it must be within 0..1")
