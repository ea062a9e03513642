"""Every knob of the tool: its default, unit and source. One frozen tree, validated when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

from selfhvd_tta.settings.labels import AlignmentSettings, ClueSettings
from selfhvd_tta.settings.labels import BlurKind as BlurKind
from selfhvd_tta.settings.labels import Merge as Merge
from selfhvd_tta.settings.rules import check
from selfhvd_tta.times import TimeRange

PAPER_STEPS, PAPER_RATE = 2000, 1e-4
PAPER_CROP, PAPER_CLIP = 256, 10
LITERAL_FLOW = "sea-raft"
NO_BACKBONE = "none"
Method = Literal["auto", "adapt", "transfer", "refit"]
Quality = Literal["quick", "balanced", "best"]
Teacher = Literal["bank", "live"]
Precision = Literal["auto", "fp32", "bf16"]
Chroma = Literal["source", "420"]
Codec = Literal["h264", "hevc", "av1", "ffv1"]
Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]
# How a comparison video shows input and result.
Layout = Literal["side", "wipe", "stack"]


Part = TypeVar("Part", "ClueSettings", "AlignmentSettings", "AdaptationSettings")


def _literal(given: Part, section: str, **paper: Any) -> Part:
    """``given`` with the paper's values in place of the defaults."""
    default = type(given)()
    for name, value in paper.items():
        chosen = getattr(given, name)
        rule = f"{value!r} with --literal"
        check(chosen in (value, getattr(default, name)), section + name, rule, chosen)
    return replace(given, **paper)


@dataclass(frozen=True)
class AdaptationSettings:
    """The two-stage fine-tuning (Eq. 6-14).

    Attributes:
        iters: Optimiser steps of both stages together; 0 applies the backbone as it is.
        stage1: Share of the steps spent in stage 1, 0..1.
        crop: Side of the square training crops in pixels. Default: 256, on a CPU 128; never more than the frame.
        clip_length: Consecutive frames of a training clip. Default: 10, on a CPU 6.
        batch: Clips per step.
        learning_rate: Initial learning rate (cosine decay). Default: 1e-4 as in the paper; higher for backbones that
            gain from it when there are few steps.
        final_learning_rate: Learning rate at the end of the cosine decay.
        perceptual_weight: Weight of the VGG term (beta); 0 disables it.
        consistency_weight: Weight of the SCSCM term (lambda); 0 disables it.
        rscr: Random sharp-clue removal in stage 2 (part of SEVD).
        random_removal: Remove frames at random in stage 2 instead of sharp ones (the comparison of Table 4).
        max_removed: L, most sharp frames removed from one clip. Default: all of them.
        sis: Supervision selection in stage 2 (part of SEVD).
        sis_threshold: tau, mean of the occlusion mask above which a frame's label may be used.
        scscm: Spatial-consistency maintenance in stage 2.
        history_updates: How often the historical model of SCSCM is renewed at most.
        label_refresh: Steps between two refreshes of the labels. Default: a sixth of all steps, at least 100.
        teacher: Where the network's own outputs among the labels come from: bank takes those of the last refresh; live
            those of the current step, as in the paper and many times slower (needs --label-refresh 1).
        sharp_weight: Weight of positions that show a sharp frame, which is its own label (ours).
        vgg_layer: VGG19 layer that the VGG term compares (before its ReLU).
        gradient_clip: Largest norm of the gradient; 0 turns clipping off.
        working_set: Most frames of one video that adaptation draws from.
        early_stop: Keep one blurry frame in eight out of the losses, and stop when their error stops falling (ours).
    """

    iters: int = 2000
    stage1: float = 0.5
    crop: int | None = None
    clip_length: int | None = None
    batch: int = 1
    learning_rate: float | None = None
    final_learning_rate: float = 1e-7
    perceptual_weight: float = 1.0
    consistency_weight: float = 1.0
    rscr: bool = True
    random_removal: bool = False
    max_removed: int | None = None
    sis: bool = True
    sis_threshold: float = 0.5
    scscm: bool = True
    history_updates: int = 2
    label_refresh: int | None = None
    teacher: Teacher = "bank"
    sharp_weight: float = 0.1
    vgg_layer: str = "conv3_4"
    gradient_clip: float = 1.0
    working_set: int = 300
    early_stop: bool = False

    def __post_init__(self) -> None:
        check(self.iters >= 0, "--iters", "0 or more", self.iters)
        check(0 <= self.stage1 <= 1, "adaptation.stage1", "within 0..1", self.stage1)
        check(self.crop is None or self.crop >= 16, "--crop", "at least 16 pixels", self.crop)
        check(self.clip_length is None or self.clip_length >= 1, "--clip-length", "at least 1 frame", self.clip_length)
        check(self.batch >= 1, "--batch", "at least 1", self.batch)
        check(self.learning_rate is None or self.learning_rate > 0, "--learning-rate", "positive", self.learning_rate)
        check(
            0 <= self.final_learning_rate <= (self.learning_rate or PAPER_RATE),
            "adaptation.final_learning_rate",
            "between 0 and the learning rate",
            self.final_learning_rate,
        )
        check(self.perceptual_weight >= 0, "--perceptual-weight", "0 or more", self.perceptual_weight)
        check(self.consistency_weight >= 0, "--consistency-weight", "0 or more", self.consistency_weight)
        check(
            self.max_removed is None or self.max_removed >= 1,
            "adaptation.max_removed",
            "at least 1",
            self.max_removed,
        )
        check(0 <= self.sis_threshold <= 1, "adaptation.sis_threshold", "within 0..1", self.sis_threshold)
        check(self.history_updates >= 0, "--history-updates", "0 or more", self.history_updates)
        check(
            self.label_refresh is None or self.label_refresh >= 1,
            "--label-refresh",
            "at least 1 step",
            self.label_refresh,
        )
        check(0 <= self.sharp_weight <= 1, "adaptation.sharp_weight", "within 0..1", self.sharp_weight)
        check(self.gradient_clip >= 0, "adaptation.gradient_clip", "0 or more", self.gradient_clip)
        check(self.working_set >= 2, "--working-set", "at least 2 frames", self.working_set)
        check(
            self.teacher == "bank" or self.label_refresh == 1,
            "--teacher live",
            "used with --label-refresh 1 (the literal paper)",
            f"--label-refresh {self.label_refresh}",
        )

    def on(self, device: str) -> AdaptationSettings:
        """With the defaults that depend on the kind of device (``cpu``, ``cuda``, ``mps``) filled in."""
        crop, length = (128, 6) if device == "cpu" else (PAPER_CROP, PAPER_CLIP)
        return replace(self, crop=self.crop or crop, clip_length=self.clip_length or length)

    @property
    def refresh_every(self) -> int:
        """``label_refresh``, or its default."""
        return self.label_refresh or max(100, math.ceil(self.iters / 6))

    def first_rate(self, haste: float) -> float:
        """``learning_rate``, or its default.

        The paper's 1e-4 for 2000 steps and more; with fewer, raised so that all steps together go as far.

        Args:
            haste: factor by which the backbone allows it to be raised at most.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return PAPER_RATE * min(haste, max(1.0, PAPER_STEPS / max(1, self.iters)))

    @property
    def side(self) -> int:
        """Side of the crop, once :meth:`on` has chosen it."""
        assert self.crop is not None, "on() chooses it"
        return self.crop

    @property
    def length(self) -> int:
        """Frames of the clip, once :meth:`on` has chosen their number."""
        assert self.clip_length is not None, "on() chooses it"
        return self.clip_length


@dataclass(frozen=True)
class RuntimeSettings:
    """Where and how to compute.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps. auto takes the first CUDA device that computes, or else the CPU, and
            says why.
        precision: auto uses bfloat16 where the backbone is verified in it and the device computes it fast (GPUs, CPUs
            with AVX512-BF16 or AMX), otherwise float32.
        seed: Random seed.
        offline: Use only weights that are on this machine.
        window: Frames restored at once. Default: as many as memory allows, at most 40.
        budget: Time limit of the whole job, such as 90s, 5m or 1h; in a job file, seconds. Steps, crop, refreshes and
            sharp frames per label are chosen to fit; iters is then ignored, except for 0.
        tile: Restore frames in overlapping tiles of this side in pixels. Default: only when memory runs out.
        restart: Start over instead of resuming an interrupted run.
        checkpoint_minutes: Minutes between two checkpoints of the adaptation: the most that an interruption can cost.
    """

    device: str = "auto"
    precision: Precision = "auto"
    seed: int = 0
    offline: bool = False
    window: int | None = None
    budget: float | None = None
    tile: int | None = None
    restart: bool = False
    checkpoint_minutes: float = 2.0

    def __post_init__(self) -> None:
        check(self.budget is None or self.budget > 0, "--budget", "positive", self.budget)
        check(self.window is None or self.window >= 1, "--window", "at least 1 frame", self.window)
        check(self.tile is None or self.tile >= 128, "--tile", "at least 128 pixels", self.tile)
        check(self.checkpoint_minutes >= 0, "--checkpoint-minutes", "0 or more", self.checkpoint_minutes)


@dataclass(frozen=True)
class OutputSettings:
    """How the result is written.

    Attributes:
        codec: h264, hevc, av1 or ffv1 (lossless). Default: h264; hevc for more than 8 bits.
        crf: Constant rate factor; lower means higher quality and a larger file. Default: follows the source, by trial
            encodes: coding costs at most 0.3 dB, in at most 2.5 times the source's bit rate. From images, and for
            comparisons: 16 for H.264, 18 for HEVC, 20 for AV1.
        preset: Encoder preset, by the names of x264: slower presets make smaller files.
        overwrite: Replace an existing output.
        chroma: source keeps the chroma subsampling of the source; 420 always writes 4:2:0, which every player
            supports.
        faststart: Write the index of an MP4 or MOV at the front, so that it plays while it downloads.
    """

    codec: Codec | None = None
    crf: int | None = None
    preset: Preset = "medium"
    overwrite: bool = False
    chroma: Chroma = "source"
    faststart: bool = True

    def __post_init__(self) -> None:
        check(self.crf is None or 0 <= self.crf <= 63, "--crf", "within 0..63", self.crf)
        check(self.codec is None or self.codec in get_args(Codec), "--codec", f"one of {get_args(Codec)}", self.codec)
        check(self.preset in get_args(Preset), "--preset", f"one of {', '.join(get_args(Preset))}", self.preset)


@dataclass(frozen=True)
class Settings:
    """All settings of one run.

    Attributes:
        method: adapt fine-tunes a network on this video; transfer only merges aligned sharp frames into what a network
            makes of it, which is quick; refit is a baseline that fine-tunes on the sharp frames blurred again (Ren et
            al., arXiv 2012.05228). auto adapts on a GPU, or if --iters, --save-adapted or a backbone with strong
            weights is given; otherwise it transfers.
        backbone: Network: an id of selfhvd-tta models, optionally id:variant, or hf:owner/name. auto takes the
            strongest one whose weights are on this machine or can be downloaded; with --method transfer, the bundled
            one. none is only valid with --method transfer, which then merges into the recorded frames.
        weights: Use this .safetensors file instead of the backbone's own weights.
        adapted: Start from weights that --save-adapted wrote; with --iters 0, only apply them. The file names its
            backbone.
        save_adapted: Write the weights adapted to this video to a .safetensors file.
        accept_non_commercial: Allow weights whose licence forbids commercial use.
        strict: Fail with exit code 5 instead of passing a video through that the method cannot help.
        detail: Blend aligned sharp frames into the network's output at the end (ours). Default: yes, except with
            --method refit.
        literal: Run the paper to the letter, with nothing of ours: one sharp frame per label, aligned by SEA-RAFT to
            the output of every step. Slow. Settings that contradict it are refused.
        force: Adapt even if all frames are equally sharp.
        strength: How much of the result is mixed in: 1 is the result, 0 the recorded frames.
        range: Restore only this part, for example 0:05-0:12, 90- or -0:10; sound and all else are cut to match.
        progressive: Restore video that is flagged interlaced, too. Right where the flag is wrong: each frame shows one
            moment.
    """

    method: Method = "auto"
    backbone: str = "auto"
    weights: str | None = None
    adapted: str | None = None
    save_adapted: str | None = None
    accept_non_commercial: bool = False
    strict: bool = False
    detail: bool | None = None
    literal: bool = False
    force: bool = False
    strength: float = 1.0
    range: str | None = None
    progressive: bool = False
    clues: ClueSettings = field(default_factory=ClueSettings)
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    output: OutputSettings = field(default_factory=OutputSettings)

    def __post_init__(self) -> None:
        check(
            self.weights is None or self.adapted is None, "--weights", "left out together with --adapted", self.weights
        )
        check(
            self.save_adapted is None or self.adapts,
            "--save-adapted",
            "used with an adaptation (--method adapt or refit, and --iters above 0)",
            self.save_adapted,
        )
        check(0 <= self.strength <= 1, "--strength", "within 0..1", self.strength)
        if self.range is not None:
            TimeRange.parse(self.range)
        check(self.method in get_args(Method), "--method", f"one of {', '.join(get_args(Method))}", self.method)
        check(
            self.networked or self.method in ("auto", "transfer"),
            "--backbone",
            "a network: none is only valid with --method transfer",
            self.backbone,
        )
        if self.literal:
            self._be_literal()
        if self.method == "refit":
            # What would choose steps by labels, or another method in their place, has no say in a baseline.
            check(self.runtime.budget is None, "--budget", "left out with --method refit", self.runtime.budget)
            check(not self.adaptation.early_stop, "--early-stop", "left out with --method refit", True)
            check(self.adaptation.teacher == "bank", "--teacher", "left out with --method refit", "live")

    def _be_literal(self) -> None:
        """Give every setting of ours the paper's value; refuse one that was given another value.

        Raises:
            UsageError: a setting contradicts the paper.
        """
        for name, agrees, value in (
            ("--method", self.method in ("auto", "adapt"), self.method),
            ("--detail", not self.detail, self.detail),
            ("--budget", self.runtime.budget is None, self.runtime.budget),
            ("--early-stop", not self.adaptation.early_stop, True),
            ("--global-motion", not self.alignment.global_motion, True),
        ):
            check(agrees, name, "left out with --literal", value)
        plan, flow = self.adaptation, self.alignment.flow
        clues = _literal(self.clues, "clues.", normalise=False)
        alignment = _literal(
            self.alignment,
            "alignment.",
            flow=LITERAL_FLOW if flow == "auto" else flow,
            teachers=1,
            rounds=1,
            photometric=False,
            narrowest=0.0,
        )
        adaptation = _literal(
            self.adaptation,
            "adaptation.",
            crop=plan.crop or PAPER_CROP,
            clip_length=plan.clip_length or PAPER_CLIP,
            learning_rate=plan.learning_rate or PAPER_RATE,
            teacher="live",
            label_refresh=1,
            sharp_weight=1.0,
            gradient_clip=0.0,
        )
        decided = {"method": "adapt", "detail": False, "clues": clues, "alignment": alignment, "adaptation": adaptation}
        for name, part in decided.items():
            object.__setattr__(self, name, part)  # frozen

    @property
    def learns(self) -> bool:
        """Whether the network may be fine-tuned."""
        return self.method != "transfer"

    @property
    def adapts(self) -> bool:
        """Whether the network will be fine-tuned."""
        return self.learns and self.adaptation.iters > 0

    @property
    def needs_adaptation(self) -> bool:
        """Whether the settings ask for something that only adaptation does; then ``auto`` means ``adapt``."""
        steps = self.adaptation.iters != AdaptationSettings.iters
        return steps or self.save_adapted is not None

    @property
    def networked(self) -> bool:
        """Whether there is a backbone at all."""
        return self.backbone != NO_BACKBONE

    @property
    def blends(self) -> bool:
        """``detail``, or its default."""
        return self.method != "refit" if self.detail is None else self.detail

    @property
    def transfers(self) -> bool:
        """Whether sharp details are blended in: not into the output of a network that was not adapted to this video."""
        informed = self.adapts or self.adapted is not None or not self.learns
        return not self.networked or (self.blends and informed)

    @property
    def part(self) -> TimeRange | None:
        """``range``, as numbers."""
        return None if self.range is None else TimeRange.parse(self.range)


# What ``--quality`` sets at once: names of settings and their values. A setting that is named itself takes precedence.
QUALITIES: Mapping[Quality, Mapping[str, object]] = {
    "quick": {"method": "transfer", "alignment.teachers": 3},
    "balanced": {},
    "best": {"method": "adapt"},
}
