"""Every knob of the tool: its default, unit and source. One frozen tree, validated when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from selfhvd_tta.errors import UsageError
from selfhvd_tta.times import TimeRange

PAPER_STEPS, PAPER_RATE = 2000, 1e-4
NO_BACKBONE = "none"
Method = Literal["adapt", "transfer", "refit"]
Teacher = Literal["bank", "live"]
Merge = Literal["learned", "weighted"]
Precision = Literal["auto", "fp32", "bf16"]
Chroma = Literal["source", "420"]
Codec = Literal["h264", "hevc", "av1", "ffv1"]
Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]
# How a comparison video shows input and result.
Layout = Literal["side", "wipe", "stack"]


def _check(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise UsageError(f"{name} is {value!r}, but it must be {rule}")


@dataclass(frozen=True)
class ClueSettings:
    """Selection of sharp frames (Sec. 3.1).

    Attributes:
        segment: frames per segment; a segment without a globally sharp frame contributes its sharpest (paper: 20).
        normalise: compare frames by v_l over their local contrast instead of by v_l (ours; ``false`` is the paper): v_l
            goes with the square of the brightness. Accuracy against the simulator (24 clips; sharp below 1 px, blurry
            above 4 px), v_l / normalised: 98.2 / 98.9 %; where the clips dim by 40 %, 89.6 / 98.5 %; where the exposure
            goes up and down, 87.6 / 98.3 %; with noise of sigma 4, 98.6 / 96.3 %. Reported sharpness stays v_l.
        contrast: a frame counts as soft if a frame at most half a segment away has this many times its score (ours).
        min_soft: share of soft frames below which there is nothing to restore: the video is passed through (ours).
    """

    segment: int = 20
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
        flow: id of a flow plug-in, optionally ``id:variant``, or ``auto``.
        global_motion: estimate a homography per pair first and let the flow explain only the rest; None means: what
            the flow does by itself (``shake`` and ``embedded`` do, the others do not).
        occlusion_scale: s of Eq. 5, per pixel of forward-backward error (paper silent).
        uncertainty: multiply by the warped certainty (Eq. 4).
        occlusion: multiply by the forward-backward mask (Eq. 5).
        teachers: sharp frames that a label is merged from; 1 is the paper's nearest sharp frame (ours). Measured PSNR
            of the blurry frames after transfer on the simulated clips, 3 / 5 / 7 / 10 teachers: camera 34.36 / 34.69 /
            34.93 / 35.08 dB, texture 31.35 / 31.71 / 31.91 / 32.00.
        teacher_reach: largest distance in frames of the second and further ones.
        sharpness_power: exponent of a teacher's v_l, relative to the sharpest one's, in its weight (0 / 1 / 2 / 4:
            camera 35.08 / 35.17 / 35.21 / 35.23 dB, texture 32.00 / 32.07 / 32.11 / 32.14).
        own_weight: weight of a sharp frame among its own teachers, if it is as sharp as they are. That sharp frames
            have teachers at all gains 0.3 dB on the blurry frames of camera (the less sharp ones of Otsu's choice)
            and 0.3 to 0.4 dB on the sharp ones, whose noise it averages.
        equal_sharpness: v_l over that of the sharpest teacher, from which on a sharp frame counts as just as sharp.
        photometric: multiply by the agreement of label and input at the scale of the blur (ours).
        agreement_sigma: low pass of that comparison, pixels per 1000 pixels of the longer side.
        agreement_tolerance: difference of the low-passed frames that counts as agreement, 0..1.
        agreement_shift: misplacement of the low-passed frames that counts as agreement, pixels.
        blend_power: exponent of the masks when teachers are merged; large values take the best one.
        merge: how the final blending joins a frame and its aligned sharp frames: ``learned`` by a bundled network, or
            ``weighted`` by the masks alone (ours; labels are always merged by weights).
        merge_weights: path of a safetensors file to use instead of the bundled network's weights.
        rounds: how often a frame is aligned to its teachers, the second time from the frame with the first result
            blended in; measured on the simulated clips, a second round lost 0.1 to 0.4 dB.
        local_power: exponent of a teacher's energy of detail around a pixel, relative to the most detailed one's, in
            its weight there; 0 leaves it out.
        local_sigma: extent of these surroundings, pixels per 1000 pixels of the longer side.
        narrowest: parts of a mask that are narrower are dropped, in the same unit: where flow and flow back are wrong,
            they still agree by chance along lines. 0 keeps them. Clip with a moving object: +0.04 dB; others: 0.
    """

    flow: str = "auto"
    global_motion: bool | None = None
    occlusion_scale: float = 0.5
    uncertainty: bool = True
    occlusion: bool = True
    teachers: int = 10
    teacher_reach: int = 20
    sharpness_power: float = 2.0
    own_weight: float = 8.0
    equal_sharpness: float = 0.7
    photometric: bool = True
    agreement_sigma: float = 5.0
    agreement_tolerance: float = 0.12
    agreement_shift: float = 3.0
    blend_power: float = 2.0
    local_power: float = 1.0
    local_sigma: float = 20.0
    narrowest: float = 12.0
    merge: Merge = "learned"
    merge_weights: str | None = None
    rounds: int = 1

    def __post_init__(self) -> None:
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
        iters: optimiser steps of both stages together; 0 leaves the backbone as it is.
        stage1: share of the steps spent in stage 1 (paper: the two stages are equally long).
        crop: side of the square training crops in pixels, the frame's if that is smaller; None: 256, on a CPU 128.
        clip_length: consecutive frames per training clip; None: 10, on a CPU 6.
        batch: clips per step.
        learning_rate: Adam's rate at the first step; None: the paper's 1e-4, more for few steps of a backbone that
            gains by it.
        final_learning_rate: rate that the cosine ends at.
        perceptual_weight: beta, weight of the VGG term.
        consistency_weight: lambda, weight of the SCSCM term.
        rscr: random sharp-clue removal in stage 2 (part of SEVD).
        max_removed: L, most sharp frames removed from one clip; None means all that it holds.
        sis: supervision selection in stage 2 (part of SEVD).
        sis_threshold: tau, mean of the occlusion mask above which a frame's label may serve.
        scscm: spatial-consistency maintenance in stage 2.
        history_updates: #update, how often the historical model is renewed at most.
        label_refresh: K, steps between two refreshes of the label bank; None: a sixth of all steps, at least 100.
        teacher: ``bank`` takes outputs of the model at the last refresh, ``live`` those of the current step.
        sharp_weight: weight of positions that show a sharp frame, which is then its own label (ours).
        vgg_layer: VGG19 layer whose activations are compared (before its ReLU).
        gradient_clip: largest norm of the gradient.
        working_set: most frames of one video that adaptation draws from.
        early_stop: keep one blurry frame in eight out of the losses, and end when their error stops falling (ours).
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
        _check(self.gradient_clip > 0, "adaptation.gradient_clip", "positive", self.gradient_clip)
        _check(self.working_set >= 2, "--working-set", "at least 2 frames", self.working_set)
        _check(
            self.teacher == "bank" or self.label_refresh == 1,
            "--teacher live",
            "used with --label-refresh 1 (the literal paper)",
            f"--label-refresh {self.label_refresh}",
        )

    def on(self, device: str) -> AdaptationSettings:
        """With what was left to the kind of device (``cpu``, ``cuda``, ``mps``) chosen."""
        crop, length = (128, 6) if device == "cpu" else (256, 10)
        return replace(self, crop=self.crop or crop, clip_length=self.clip_length or length)

    def first_rate(self, haste: float) -> float:
        """``learning_rate``, decided.

        The paper's 1e-4 for its 2000 steps and more; with fewer, so much more that all steps together go as far.

        Args:
            haste: of the backbone, how many times as much it may become.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return PAPER_RATE * min(haste, max(1.0, PAPER_STEPS / max(1, self.iters)))

    @property
    def side(self) -> int:
        """The crop's, once :meth:`on` has chosen."""
        assert self.crop is not None, "on() chooses it"
        return self.crop

    @property
    def length(self) -> int:
        """The clip's, once :meth:`on` has chosen."""
        assert self.clip_length is not None, "on() chooses it"
        return self.clip_length


@dataclass(frozen=True)
class RuntimeSettings:
    """Where and how to compute.

    Attributes:
        device: ``auto`` takes CUDA where there is one, then the CPU; else a torch device name.
        precision: ``auto`` takes bfloat16 where the backbone is verified in it and the device is good at it (GPUs,
            CPUs with AVX512-BF16 or AMX), else float32.
        seed: of every random draw.
        offline: never ask the network for weights.
        window: frames restored at once; None means as many as memory allows, at most 40.
        budget: seconds that the whole job may take: steps, crop, refreshes and teachers are then chosen to fit, and
            ``iters`` is not used; None for no limit.
        tile: side in pixels of the overlapping tiles that a frame is restored in; None means whole frames while they
            fit into memory.
        restart: begin anew instead of continuing an interrupted run.
        checkpoint_minutes: longest time between two checkpoints of the adaptation, what an interruption can cost.
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
        codec: ``h264``, ``hevc``, ``av1``, ``ffv1`` (lossless), or None: H.264 for 8-bit input, HEVC for 10-bit.
        crf: constant rate factor; None means 16 for H.264, 18 for HEVC, 20 for AV1.
        preset: encoder preset, by x264's names (``ultrafast`` to ``placebo``).
        overwrite: replace an existing output.
        chroma: ``source`` keeps the source's chroma subsampling, ``420`` stores what every player knows.
        faststart: put the index of an MP4 or MOV in front, so that it plays while it is being downloaded.
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
        method: ``adapt`` fine-tunes a network on the video; ``transfer`` merges aligned sharp frames into its output;
            ``refit`` fine-tunes on the sharp frames blurred again (a baseline: Ren et al., arXiv 2012.05228).
        backbone: id of a backbone plug-in, optionally ``id:variant``, ``hf:owner/name``, or ``auto``; with ``transfer``
            ``auto`` is the bundled one, and ``none`` leaves the frames as recorded.
        weights: path of a safetensors file to use instead of the backbone's own weights.
        adapted: path of a file that ``save_adapted`` wrote; it names its backbone, which must not be contradicted.
        save_adapted: where to write the weights adapted to this video, as a safetensors file.
        accept_non_commercial: weights whose licence forbids commercial use may be used.
        strict: fail instead of passing the video through when the method cannot help.
        detail: after adaptation, blend aligned sharp frames into the network's output where they match (ours); None
            means yes, but no after ``refit``.
        force: adapt even where the frames do not differ in sharpness.
        range: the part of the video to restore, for example ``0:05-0:12``, ``90-`` or ``-0:10``; None for all of it.
    """

    method: Method = "adapt"
    backbone: str = "auto"
    weights: str | None = None
    adapted: str | None = None
    save_adapted: str | None = None
    accept_non_commercial: bool = False
    strict: bool = False
    detail: bool | None = None
    force: bool = False
    range: str | None = None
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
        if self.range is not None:
            TimeRange.parse(self.range)
        _check(self.method in get_args(Method), "--method", f"one of {', '.join(get_args(Method))}", self.method)
        _check(self.networked or not self.learns, "--backbone", "a network, but with --method transfer", self.backbone)
        if self.method == "refit":
            # What would choose steps by labels, or another method in their place, has no say in a baseline.
            _check(self.runtime.budget is None, "--budget", "left out with --method refit", self.runtime.budget)
            _check(not self.adaptation.early_stop, "--early-stop", "left out with --method refit", True)
            _check(self.adaptation.teacher == "bank", "--teacher", "left out with --method refit", "live")

    @property
    def learns(self) -> bool:
        """Whether the network may be fine-tuned."""
        return self.method != "transfer"

    @property
    def adapts(self) -> bool:
        """Whether the network will be fine-tuned."""
        return self.learns and self.adaptation.iters > 0

    @property
    def networked(self) -> bool:
        """Whether there is a backbone at all."""
        return self.backbone != NO_BACKBONE

    @property
    def blends(self) -> bool:
        """``detail``, decided."""
        return self.method != "refit" if self.detail is None else self.detail

    @property
    def part(self) -> TimeRange | None:
        """``range``, as numbers."""
        return None if self.range is None else TimeRange.parse(self.range)
