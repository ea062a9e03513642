"""Every knob of the tool: its default, unit and source. One frozen tree, validated when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

from selfhvd_tta.errors import UsageError
from selfhvd_tta.times import TimeRange

PAPER_STEPS, PAPER_RATE = 2000, 1e-4
PAPER_CROP, PAPER_CLIP = 256, 10
LITERAL_FLOW = "sea-raft"
NO_BACKBONE = "none"
Method = Literal["auto", "adapt", "transfer", "refit"]
Quality = Literal["quick", "balanced", "best"]
Teacher = Literal["bank", "live"]
Merge = Literal["learned", "weighted"]
BlurKind = Literal["auto", "local", "global"]
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
        _check(chosen in (value, getattr(default, name)), section + name, rule, chosen)
    return replace(given, **paper)


def _check(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise UsageError(f"{name} is {value!r}, but it must be {rule}")


@dataclass(frozen=True)
class ClueSettings:
    """Selection of the sharp frames (Sec. 3.1).

    Attributes:
        segment: Frames per segment; a segment without a globally sharp frame contributes its sharpest one.
        normalise: Divide v_l by the local contrast before comparing frames (ours; false is the paper's way). v_l grows
            with the square of the brightness, so dimmed frames would count as blurry.
        contrast: A frame is soft if a frame at most half a segment away has this many times its score (ours).
        min_soft: Share of soft frames below which there is nothing to restore and the video is passed through (ours).
    """

    segment: int = 20
    # Accuracy against the simulator (24 clips; sharp below 1 px, blurry above 4 px), v_l / normalised: 98.2 / 98.9 %;
    # dimmed by 40 %: 89.6 / 98.5 %; exposure going up and down: 87.6 / 98.3 %; noise of sigma 4: 98.6 / 96.3 %.
    normalise: bool = True
    contrast: float = 1.5
    min_soft: float = 0.02

    def __post_init__(self) -> None:
        _check(self.segment >= 2, "clues.segment", "at least 2 frames", self.segment)
        _check(self.contrast > 1, "clues.contrast", "more than 1", self.contrast)
        _check(0 <= self.min_soft <= 1, "clues.min_soft", "within 0..1", self.min_soft)


@dataclass(frozen=True)
class AlignmentSettings:
    """Warping sharp frames onto blurry ones, and masking what does not match (Eq. 3-5).

    Attributes:
        flow: Optical flow: an id of selfhvd-tta models, optionally id:variant. auto takes the best one whose weights
            are on this machine or can be downloaded.
        global_motion: Estimate a homography per pair first, so that the flow only explains the rest. Default: as the
            flow's authors have it.
        blur: Blur model of the frames (ours): local follows the motion of every pixel (depth, people), global one path
            per frame (flat scenes, streaked lights). auto takes what explains some of the video's frames better.
        occlusion_scale: s of Eq. 5, per pixel of forward-backward error (not given in the paper).
        uncertainty: Mask by the certainty of the flow (Eq. 4).
        occlusion: Mask by forward-backward consistency (Eq. 5).
        teachers: Sharp frames merged into one label; 1 is the paper's nearest sharp frame.
        teacher_reach: Largest distance of the second and further sharp frames, in frames.
        sharpness_power: Exponent of a sharp frame's v_l, relative to the sharpest one's, in its weight.
        own_weight: Weight of a sharp frame in its own label, if it is as sharp as the others.
        equal_sharpness: Ratio of v_l to that of the sharpest candidate from which a frame counts as equally sharp.
        photometric: Mask by the agreement of label and input at the scale of the blur (ours).
        agreement_sigma: Low-pass filter of that comparison, in pixels per 1000 pixels of the longer side.
        agreement_tolerance: Difference of the low-passed frames that counts as agreement, 0..1.
        agreement_shift: Misplacement of the low-passed frames that counts as agreement, in pixels.
        blend_power: Exponent of the masks when sharp frames are merged; large values take the best one.
        merge: How sharp frames are blended in at the end: learned uses a bundled network; weighted uses the masks
            alone, which is quicker. Labels are always merged by weights.
        merge_weights: Weights for --merge learned, written by 'pretrain-merge --export' (.safetensors).
        rounds: How often a frame is aligned to its sharp frames; from the second time on, the frame has the previous
            result blended in.
        local_power: Exponent of a sharp frame's energy of detail around a pixel, relative to the most detailed one's,
            in its weight there; 0 disables it.
        local_sigma: Extent of these surroundings, in pixels per 1000 pixels of the longer side.
        narrowest: Parts of a mask that are narrower are dropped, in the same unit; 0 keeps them. Where flow and flow
            back are wrong, they still agree by chance along lines.
    """

    flow: str = "auto"
    global_motion: bool | None = None
    blur: BlurKind = "auto"
    occlusion_scale: float = 0.5
    uncertainty: bool = True
    occlusion: bool = True
    # PSNR of the blurry frames after transfer on the simulated clips, 3 / 5 / 7 / 10: camera 34.36 / 34.69 / 34.93 /
    # 35.08 dB, texture 31.35 / 31.71 / 31.91 / 32.00.
    teachers: int = 10
    teacher_reach: int = 20
    # 0 / 1 / 2 / 4: camera 35.08 / 35.17 / 35.21 / 35.23 dB, texture 32.00 / 32.07 / 32.11 / 32.14.
    sharpness_power: float = 2.0
    # That sharp frames have labels at all gains 0.3 dB on the blurry frames of camera (the less sharp ones of Otsu's
    # choice) and 0.3 to 0.4 dB on the sharp ones, whose noise it averages.
    own_weight: float = 8.0
    equal_sharpness: float = 0.7
    photometric: bool = True
    agreement_sigma: float = 5.0
    agreement_tolerance: float = 0.12
    agreement_shift: float = 3.0
    blend_power: float = 2.0
    local_power: float = 1.0
    local_sigma: float = 20.0
    narrowest: float = 12.0  # clip with a moving object: +0.04 dB; others: 0
    merge: Merge = "learned"
    merge_weights: str | None = None
    rounds: int = 1  # a second round lost 0.1 to 0.4 dB on the simulated clips

    def __post_init__(self) -> None:
        _check(self.blur in get_args(BlurKind), "--blur", "auto, local or global", self.blur)
        _check(self.merge in get_args(Merge), "--merge", "learned or weighted", self.merge)
        _check(
            self.merge_weights is None or self.merge == "learned",
            "--merge-weights",
            "left out with --merge weighted",
            self.merge_weights,
        )
        _check(self.occlusion_scale > 0, "alignment.occlusion_scale", "positive", self.occlusion_scale)
        _check(self.teachers >= 1, "--teachers", "at least 1", self.teachers)
        _check(self.teacher_reach >= 1, "alignment.teacher_reach", "at least 1 frame", self.teacher_reach)
        _check(self.sharpness_power >= 0, "alignment.sharpness_power", "0 or more", self.sharpness_power)
        _check(self.own_weight > 0, "alignment.own_weight", "positive", self.own_weight)
        _check(0 <= self.equal_sharpness <= 1, "alignment.equal_sharpness", "within 0..1", self.equal_sharpness)
        _check(self.agreement_sigma > 0, "alignment.agreement_sigma", "positive", self.agreement_sigma)
        _check(self.agreement_tolerance > 0, "alignment.agreement_tolerance", "positive", self.agreement_tolerance)
        _check(self.agreement_shift >= 0, "alignment.agreement_shift", "0 or more", self.agreement_shift)
        _check(self.blend_power > 0, "alignment.blend_power", "positive", self.blend_power)
        _check(self.rounds >= 1, "alignment.rounds", "at least 1", self.rounds)
        _check(self.local_power >= 0, "alignment.local_power", "0 or more", self.local_power)
        _check(self.local_sigma > 0, "alignment.local_sigma", "positive", self.local_sigma)
        _check(self.narrowest >= 0, "alignment.narrowest", "0 or more", self.narrowest)


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
        _check(self.iters >= 0, "--iters", "0 or more", self.iters)
        _check(0 <= self.stage1 <= 1, "adaptation.stage1", "within 0..1", self.stage1)
        _check(self.crop is None or self.crop >= 16, "--crop", "at least 16 pixels", self.crop)
        _check(self.clip_length is None or self.clip_length >= 1, "--clip-length", "at least 1 frame", self.clip_length)
        _check(self.batch >= 1, "--batch", "at least 1", self.batch)
        _check(self.learning_rate is None or self.learning_rate > 0, "--learning-rate", "positive", self.learning_rate)
        _check(
            0 <= self.final_learning_rate <= (self.learning_rate or PAPER_RATE),
            "adaptation.final_learning_rate",
            "between 0 and the learning rate",
            self.final_learning_rate,
        )
        _check(self.perceptual_weight >= 0, "--perceptual-weight", "0 or more", self.perceptual_weight)
        _check(self.consistency_weight >= 0, "--consistency-weight", "0 or more", self.consistency_weight)
        _check(
            self.max_removed is None or self.max_removed >= 1,
            "adaptation.max_removed",
            "at least 1",
            self.max_removed,
        )
        _check(0 <= self.sis_threshold <= 1, "adaptation.sis_threshold", "within 0..1", self.sis_threshold)
        _check(self.history_updates >= 0, "--history-updates", "0 or more", self.history_updates)
        _check(
            self.label_refresh is None or self.label_refresh >= 1,
            "--label-refresh",
            "at least 1 step",
            self.label_refresh,
        )
        _check(0 <= self.sharp_weight <= 1, "adaptation.sharp_weight", "within 0..1", self.sharp_weight)
        _check(self.gradient_clip >= 0, "adaptation.gradient_clip", "0 or more", self.gradient_clip)
        _check(self.working_set >= 2, "--working-set", "at least 2 frames", self.working_set)
        _check(
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
        _check(self.budget is None or self.budget > 0, "--budget", "positive", self.budget)
        _check(self.window is None or self.window >= 1, "--window", "at least 1 frame", self.window)
        _check(self.tile is None or self.tile >= 128, "--tile", "at least 128 pixels", self.tile)
        _check(self.checkpoint_minutes >= 0, "--checkpoint-minutes", "0 or more", self.checkpoint_minutes)


@dataclass(frozen=True)
class OutputSettings:
    """How the result is written.

    Attributes:
        codec: h264, hevc, av1 or ffv1 (lossless). Default: h264; hevc for more than 8 bits.
        crf: Constant rate factor; lower means higher quality and a larger file. Default: 16 for H.264, 18 for HEVC, 20
            for AV1.
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
        _check(self.crf is None or 0 <= self.crf <= 63, "--crf", "within 0..63", self.crf)
        _check(self.codec is None or self.codec in get_args(Codec), "--codec", f"one of {get_args(Codec)}", self.codec)
        _check(self.preset in get_args(Preset), "--preset", f"one of {', '.join(get_args(Preset))}", self.preset)


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
        _check(
            self.weights is None or self.adapted is None, "--weights", "left out together with --adapted", self.weights
        )
        _check(
            self.save_adapted is None or self.adapts,
            "--save-adapted",
            "used with an adaptation (--method adapt or refit, and --iters above 0)",
            self.save_adapted,
        )
        _check(0 <= self.strength <= 1, "--strength", "within 0..1", self.strength)
        if self.range is not None:
            TimeRange.parse(self.range)
        _check(self.method in get_args(Method), "--method", f"one of {', '.join(get_args(Method))}", self.method)
        _check(
            self.networked or self.method in ("auto", "transfer"),
            "--backbone",
            "a network: none is only valid with --method transfer",
            self.backbone,
        )
        if self.literal:
            self._be_literal()
        if self.method == "refit":
            # What would choose steps by labels, or another method in their place, has no say in a baseline.
            _check(self.runtime.budget is None, "--budget", "left out with --method refit", self.runtime.budget)
            _check(not self.adaptation.early_stop, "--early-stop", "left out with --method refit", True)
            _check(self.adaptation.teacher == "bank", "--teacher", "left out with --method refit", "live")

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
            _check(agrees, name, "left out with --literal", value)
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
