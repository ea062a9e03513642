"""Settings of what a frame learns from: which frames are sharp, and how they are aligned, masked and merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from selfhvd_tta.settings.rules import check

Merge = Literal["learned", "weighted"]
BlurKind = Literal["auto", "local", "global"]


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
        check(self.segment >= 2, "clues.segment", "at least 2 frames", self.segment)
        check(self.contrast > 1, "clues.contrast", "more than 1", self.contrast)
        check(0 <= self.min_soft <= 1, "clues.min_soft", "within 0..1", self.min_soft)


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
        check(self.blur in get_args(BlurKind), "--blur", "auto, local or global", self.blur)
        check(self.merge in get_args(Merge), "--merge", "learned or weighted", self.merge)
        check(
            self.merge_weights is None or self.merge == "learned",
            "--merge-weights",
            "left out with --merge weighted",
            self.merge_weights,
        )
        check(self.occlusion_scale > 0, "alignment.occlusion_scale", "positive", self.occlusion_scale)
        check(self.teachers >= 1, "--teachers", "at least 1", self.teachers)
        check(self.teacher_reach >= 1, "alignment.teacher_reach", "at least 1 frame", self.teacher_reach)
        check(self.sharpness_power >= 0, "alignment.sharpness_power", "0 or more", self.sharpness_power)
        check(self.own_weight > 0, "alignment.own_weight", "positive", self.own_weight)
        check(0 <= self.equal_sharpness <= 1, "alignment.equal_sharpness", "within 0..1", self.equal_sharpness)
        check(self.agreement_sigma > 0, "alignment.agreement_sigma", "positive", self.agreement_sigma)
        check(self.agreement_tolerance > 0, "alignment.agreement_tolerance", "positive", self.agreement_tolerance)
        check(self.agreement_shift >= 0, "alignment.agreement_shift", "0 or more", self.agreement_shift)
        check(self.blend_power > 0, "alignment.blend_power", "positive", self.blend_power)
        check(self.rounds >= 1, "alignment.rounds", "at least 1", self.rounds)
        check(self.local_power >= 0, "alignment.local_power", "0 or more", self.local_power)
        check(self.local_sigma > 0, "alignment.local_sigma", "positive", self.local_sigma)
        check(self.narrowest >= 0, "alignment.narrowest", "0 or more", self.narrowest)
