"""Pretraining of a backbone on simulated shake: what test-time adaptation starts from.

``pretrain`` can be stopped at any time and continues at the last checkpoint; a time budget ends it cleanly with the
learning rate annealed. The weights to keep are those of the moving average (EMA); :func:`export_weights` writes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import discover
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError
from selfhvd_tta.training.dataset import ClipPool
from selfhvd_tta.training.muon import Muon
from selfhvd_tta.training.photos import list_photos
from selfhvd_tta.training.simulate import SimulatedClip
from selfhvd_tta.training.validation import validation_clips
from selfhvd_tta.weights.tensors import save

Optimisers = tuple[torch.optim.Optimizer, ...]
# Photographs of the developers' set that no training ever sees. Of other sets every ninth is held out.
HELD_OUT = (
    "budgie_casa-mila.jpg",
    "budgie_tea-gardens.jpg",
    "drewnoakes_HTC_One.jpg",
    "drewnoakes_Nikon_D40.jpg",
    "elementary_Morskie_Oko.jpg",
    "lomiri_life_by_Aitzol_Berasategi.jpg",
    "plasma_Path.jpg",
    "pop-os_samuel-zeller-337041.jpg",
)


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run.

    Attributes:
        photos: folders of photographs.
        output: folder of the run: ``checkpoint.pt``, ``log.jsonl`` and ``pool/``.
        backbone: id of the backbone.
        variant: its variant; None: the default one.
        steps: optimiser steps at most.
        budget: seconds of training at most, all resumed parts together; None: no limit.
        crop: side of the training crops in pixels.
        clip_length: frames per training clip.
        batch: clips per step.
        learning_rate: of Muon and Adam, after the warm-up.
        final_learning_rate: rate that the cosine ends at.
        warmup: steps of linear warm-up.
        softness: error, in units of white, up to which the loss is quadratic. At 0.001 (L1) most of the gradient came
            from noise and compression that nothing can undo: half the gain on severe blur after equally many steps.
        gradient_clip: largest norm of the gradient.
        ema: decay of the moving average per step.
        pool: clips kept at a time.
        renewal: steps after which one of them is renewed; 0: never.
        clip_size: height and width of simulated clips.
        clip_frames: length of simulated clips.
        seed: of weights and data.
        precision: of the forward pass.
        device: torch device.
        validate_every: steps between two validations; 0: only at the end.
        checkpoint_every: seconds between two checkpoints.
        initial: checkpoint of another run whose weights and moving average to start from.
    """

    photos: tuple[Path, ...]
    output: Path
    backbone: str = "estrnn"
    variant: str | None = None
    steps: int = 200_000
    budget: float | None = None
    crop: int = 96
    clip_length: int = 8
    batch: int = 1
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup: int = 50
    softness: float = 0.05
    gradient_clip: float = 0.5
    ema: float = 0.995
    pool: int = 500
    renewal: int = 20
    clip_size: int = 160
    clip_frames: int = 14
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    validate_every: int = 1000
    checkpoint_every: float = 120.0
    initial: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "crop", "clip_length", "batch", "pool", "learning_rate", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, but it must be positive")
        if self.crop > self.clip_size or self.clip_length > self.clip_frames:
            raise UsageError(
                f"crops of {self.clip_length} frames at {self.crop} px do not fit into simulated clips of "
                f"{self.clip_frames} frames at {self.clip_size} px"
            )


@dataclass(frozen=True)
class Validation:
    """Gain in PSNR over the input, in dB, on held-out photographs; NaN where there is no such frame.

    Attributes:
        blurry: mean over frames with more than a pixel of blur.
        severe: mean over those of them whose input is below 30 dB.
        sharp: mean over the other frames; pretraining is fit for use when it is not below -0.1.
    """

    blurry: float
    severe: float
    sharp: float


@dataclass(frozen=True)
class PretrainProgress:
    """What ``on_progress`` receives, every 50 steps and after each validation.

    Attributes:
        step: steps done.
        seconds: training time so far.
        loss: mean since the last report.
        learning_rate: of the last step.
        validation: of the moving average, if one was just made.
    """

    step: int
    seconds: float
    loss: float
    learning_rate: float
    validation: Validation | None = None


def build_network(backbone_id: str, variant_name: str | None) -> Network:
    """A backbone with fresh weights.

    Raises:
        UsageError: there is no such backbone or variant.
    """
    backbones = discover()
    if backbone_id not in backbones:
        raise UsageError(f"no backbone '{backbone_id}'", f"There are: {', '.join(backbones)}.")
    backbone = backbones[backbone_id]
    try:
        variant = backbone.variant(variant_name)
    except KeyError:
        names = ", ".join(v.name for v in backbone.variants)
        raise UsageError(f"{backbone_id} has no variant '{variant_name}'", f"There are: {names}.") from None
    return Network(backbone.build(**variant.config), backbone, variant)


def build_optimisers(network: Network, rate: float) -> Optimisers:
    """Muon for the weights within the network; Adam for biases and for the layers that touch pixels."""
    inner: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for parameter in network.parameters():
        at_pixels = parameter.ndim >= 2 and 3 in parameter.shape[:2]
        (inner if parameter.ndim >= 2 and not at_pixels else other).append(parameter)
    return Muon(inner, rate), torch.optim.Adam(other, rate, betas=(0.9, 0.99))


def split_photos(photos: list[Path]) -> tuple[list[Path], list[Path]]:
    """Training and held-out photographs."""
    held = [path for path in photos if path.name in HELD_OUT] or photos[::9]
    return [path for path in photos if path not in held] or held, held


def pretrain(config: PretrainConfig, on_progress: Callable[[PretrainProgress], None] | None = None) -> PretrainProgress:
    """Train, or continue the run in ``config.output``.

    Returns:
        The last report, with a validation.

    Raises:
        UsageError: no photographs, no such backbone, or a checkpoint of another network.
    """
    try:
        photos = list_photos(config.photos)
    except (ValueError, OSError) as error:
        raise UsageError(str(error), "Give a folder of photographs.") from error
    trainable, held_out = split_photos(photos)
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    network = build_network(config.backbone, config.variant).to(device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimisers = build_optimisers(network, config.learning_rate)
    config.output.mkdir(parents=True, exist_ok=True)
    checkpoint = config.output / "checkpoint.pt"
    step, before = _restore(config, checkpoint, network, average, optimisers)
    pool = ClipPool(
        trainable,
        config.output / "pool",
        capacity=config.pool,
        renewal=config.renewal,
        size=config.clip_size,
        frames=config.clip_frames,
        seed=config.seed,
        device=device,
    )
    clips = validation_clips(held_out, size=192, frames=16, seed=config.seed)

    started = saved = time.monotonic()
    losses: list[Tensor] = []

    def report(validation: Validation | None = None) -> PretrainProgress:
        loss = float(torch.stack(losses).mean()) if losses else math.nan
        progress = PretrainProgress(step, seconds, loss, rate, validation)
        with (config.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(asdict(progress)) + "\n")
        if on_progress is not None:
            on_progress(progress)
        losses.clear()
        return progress

    seconds, rate = before, 0.0
    while step < config.steps and (config.budget is None or seconds < config.budget):
        done = max(step / config.steps, seconds / config.budget if config.budget else 0.0)
        rate = learning_rate(config, step, done)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        blurry, sharp = pool.batch(step, config.batch, config.crop, config.clip_length)
        losses.append(_step(config, network, optimisers, blurry.to(device), sharp.to(device)))
        step += 1
        _update_average(average, network, min(config.ema, step / (step + 20)))
        seconds = before + time.monotonic() - started
        if config.validate_every and step % config.validate_every == 0:
            report(validate(average, clips))
        elif step % 50 == 0:
            report()
        if time.monotonic() - saved > config.checkpoint_every:
            _save(checkpoint, network, average, optimisers, step, seconds)
            saved = time.monotonic()
    _save(checkpoint, network, average, optimisers, step, seconds)
    return report(validate(average, clips))


def learning_rate(config: PretrainConfig, step: int, done: float) -> float:
    """Linear warm-up, then a cosine over the share of the run that is done (of its steps or of its time)."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    span = config.learning_rate - config.final_learning_rate
    return (config.final_learning_rate + span * cosine) * min(1.0, (step + 1) / max(config.warmup, 1))


def restoration_loss(output: Tensor, target: Tensor, softness: float) -> Tensor:
    """Charbonnier distance ``sqrt(e^2 + softness^2) - softness``: quadratic below ``softness``, linear above it."""
    error = output - target
    return (error * error + softness**2).sqrt().mean() - softness


def _step(config: PretrainConfig, network: Network, optimisers: Optimisers, blurry: Tensor, sharp: Tensor) -> Tensor:
    with torch.autocast(blurry.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        output = network(blurry)
    loss = restoration_loss(output.float(), sharp, config.softness)
    network.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    if torch.isfinite(norm):
        for optimiser in optimisers:
            optimiser.step()
    return loss.detach()


@torch.no_grad()
def _update_average(average: Network, network: Network, decay: float) -> None:
    for kept, current in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)


@torch.no_grad()
def validate(network: Network, clips: list[SimulatedClip]) -> Validation:
    """Gain of a network over its input on simulated clips, outputs rounded to 8 bits."""
    device = next(network.parameters()).device
    gains, inputs, extents = [], [], []
    for clip in clips:
        blurry, sharp = (torch.from_numpy(x).to(device).permute(0, 3, 1, 2).float() for x in (clip.blurry, clip.sharp))
        output = (network(blurry[None] / 255)[0].clamp(0, 1) * 255).round()
        before = _psnr(blurry, sharp)
        gains.append(_psnr(output, sharp) - before)
        inputs.append(before)
        extents.append(torch.from_numpy(clip.extent).to(device))
    gain, before, extent = torch.cat(gains), torch.cat(inputs), torch.cat(extents)
    soft = extent >= 1

    def mean(mask: Tensor) -> float:
        return float(gain[mask].mean())

    return Validation(mean(soft), mean(soft & (before < 30)), mean(~soft))


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    return -10 * torch.log10((a - b).square().mean((1, 2, 3)).clamp(min=1e-3) / 255**2)


def _save(path: Path, network: Network, average: Network, optimisers: Optimisers, step: int, seconds: float) -> None:
    part = path.with_suffix(".part")
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, part)
    part.replace(path)


def _restore(
    config: PretrainConfig, path: Path, network: Network, average: Network, optimisers: Optimisers
) -> tuple[int, float]:
    """Load the run's checkpoint or the initial weights; step and seconds done so far."""
    source = path if path.exists() else config.initial
    if source is None:
        return 0, 0.0
    state: dict[str, Any] = torch.load(source, map_location=config.device, weights_only=True)
    try:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
    except RuntimeError as error:
        raise UsageError(
            f"{source} is a checkpoint of another network than {config.backbone}", "Choose another output folder."
        ) from error
    if source != path:
        return 0, 0.0
    for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    return int(state["step"]), float(state["seconds"])


def export_weights(config: PretrainConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors that name their backbone and variant.

    Args:
        config: of the run.
        target: the file.
        description: kept in the file beside the names: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    state: dict[str, Any] = torch.load(config.output / "checkpoint.pt", map_location="cpu", weights_only=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in state["average"].items()}
    variant = build_network(config.backbone, config.variant).variant.name
    save(target, tensors, {**description, "backbone": config.backbone, "variant": variant, "step": state["step"]})
    return hashlib.sha256(target.read_bytes()).hexdigest()
