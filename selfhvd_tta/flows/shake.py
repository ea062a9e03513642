"""The flow that this project trains: global motion first, then DIS, proofread by a network that has seen only shake.

The network (:mod:`selfhvd_tta.flows.shake_network`) was trained by the simulator on what the homography leaves between
blur-matched frames: parallax, rolling shutter, moving objects, errors of the fit. Unlike the rules by which
``embedded`` weighs DIS against the homography, it also knows how far wrong it is likely to be.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from selfhvd_tta.flows import Flow, FlowEstimator, FlowField, FlowVariant, PairEstimator, pad_replicate
from selfhvd_tta.flows.dis import DIS
from selfhvd_tta.flows.global_motion import GlobalMotionFirst, moved, reconciled
from selfhvd_tta.flows.shake_network import MULTIPLE, ShakeNetwork

# Expected error in pixels at which certainty has fallen to a half. Labels of two simulated clips, none of those that
# figures are given for: 34.59 dB at 1, 34.65 at 2, 34.58 without any such fall; exp(-error / 0.5): 33.84.
TOLERATED = 2.0


def first_guess(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Flow that the network starts from, there and back: DIS on luma, averaged where both directions nearly agree.

    Args:
        first, second: (1, 3, H, W) in [0, 1].

    Returns:
        Two flows (1, 2, H, W) in pixels, on the CPU.
    """
    there, back = DIS().both(first, second)
    return reconciled(there.flow.cpu(), back.flow.cpu())


def round_trip(flow: Tensor, back: Tensor) -> Tensor:
    """Distance in pixels from each pixel to where flow and flow back lead it: (B, 1, H, W) of (B, 2, H, W) flows."""
    gap = flow + torch.cat([moved(b[None], a[None]) for a, b in zip(flow, back, strict=True)])
    return torch.hypot(gap[:, :1], gap[:, 1:])


class Proofread(PairEstimator):
    """DIS corrected by the network, both directions at once, for frames that are equally soft and nearly aligned."""

    weighs_evidence = True

    def __init__(self, network: ShakeNetwork | None = None) -> None:
        super().__init__()
        self.network = network or ShakeNetwork()

    def pair(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        """Both directions are one batch of the network."""
        ways = first_guess(source, target)
        guess = torch.cat(ways).to(source.device)
        gap = round_trip(torch.cat(ways), torch.cat(ways[::-1])).to(source.device)
        frames = torch.cat((source, target)).float()
        height, width = source.shape[-2:]
        (frames, guess, gap), (top, left) = pad_replicate((frames, guess, gap), MULTIPLE, 2 * MULTIPLE)
        # Blurry frames of two simulated clips with one reading and with two: 38.27 and 29.23 dB both times.
        reading = self.network.first(frames, frames.flip(0), guess, gap, self.autocast)
        certainty = torch.sigmoid(reading.seen) / (1 + (reading.log_scale.exp() / TOLERATED).square())
        rows, columns = slice(top, top + height), slice(left, left + width)
        flow, certainty = (each[..., rows, columns].contiguous() for each in (reading.flow, certainty))
        return FlowField(flow[:1], certainty[:1]), FlowField(flow[1:], certainty[1:])


class Shake(GlobalMotionFirst):
    """Global motion first, :class:`Proofread` for the rest.

    Args:
        working_side: frames with a longer side are scaled down to it for everything but the final flow.
    """

    def __init__(self, working_side: int = 640) -> None:
        super().__init__(Proofread(), working_side)


def load(estimator: FlowEstimator, tensors: Mapping[str, Tensor]) -> None:
    """Load the network's tensors, strictly.

    Raises:
        RuntimeError: a tensor is missing, superfluous or has another shape.
    """
    if not isinstance(estimator, Shake) or not isinstance(estimator.inner, Proofread):
        raise TypeError(f"these are weights of the flow 'shake', not of {type(estimator).__name__}")
    estimator.inner.network.load_state_dict(dict(tensors), strict=True)


FLOW = Flow(
    id="shake",
    summary="global motion with the blur between the frames, DIS proofread by a network trained on simulated shake",
    licence="MIT",
    paper="ours; DIS: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016",
    build=Shake,
    variants=(FlowVariant("dis", {}, ("flow-shake",)),),
    load=load,
    learned=True,
    autocast=frozenset({"bfloat16"}),
)
