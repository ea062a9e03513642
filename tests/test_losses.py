"""Every loss term against a case computed by hand, and where its gradient goes."""

from __future__ import annotations

import pytest
import torch

from selfhvd_tta.method import losses


def frames(*values: float) -> torch.Tensor:
    """(1, T, 3, 2, 2): one constant frame per value."""
    return torch.tensor(values).view(1, -1, 1, 1, 1).expand(1, len(values), 3, 2, 2).clone()


def masks(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1).expand(1, len(values), 1, 2, 2).clone()


ONE = torch.ones(1, 2)


def test_masked_l1_divides_by_all_pixels() -> None:
    output, target = frames(0.5), frames(0.2)
    mask = masks(1.0)
    mask[..., 0, 0] = 0
    assert losses.masked_l1(output, target, mask).item() == pytest.approx(0.3 * 3 / 4)


def test_reconstruction_loss() -> None:
    # Frame 0: 1.0 * |0.5 - 0.2| = 0.3; frame 1: 0.5 * |0.5 - 0.9| = 0.2; weights 1 and 0.1; mean over two frames.
    loss = losses.reconstruction_loss(frames(0.5, 0.5), frames(0.2, 0.9), masks(1, 0.5), torch.tensor([[1, 0.1]]))
    assert loss.item() == pytest.approx((0.3 + 0.02) / 2)


def test_sevd_loss_takes_label_or_teacher() -> None:
    loss = losses.sevd_loss(
        frames(0.5, 0.5), frames(0.2, 0.2), masks(0.5, 0.5), frames(0.9, 0.4), torch.tensor([[True, False]]), ONE
    )
    # Chosen: 0.5 * 0.3; not chosen: |0.5 - 0.4|, without the mask.
    assert loss.item() == pytest.approx((0.15 + 0.1) / 2)


def test_consistency_loss() -> None:
    assert losses.consistency_loss(frames(0.5, 0.2), frames(0.4, 0.5), ONE).item() == pytest.approx(0.2)


def test_perceptual_loss_resizes_the_mask_by_area() -> None:
    def halved(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 2)

    mask = masks(1.0, 1.0)
    mask[..., 0, :] = 0  # half of the only feature cell
    loss = losses.perceptual_loss(halved, frames(0.5, 0.5), frames(0.1, 0.5), mask, ONE)
    assert loss.item() == pytest.approx(0.5 * 0.4 / 2)


def test_objectives_weigh_their_terms() -> None:
    one, two, three = (torch.tensor(float(v)) for v in (1, 2, 3))
    assert losses.stage1_objective(one, two, 0.5).item() == 2
    assert losses.stage2_objective(one, two, three, lam=2, beta=0.5).item() == 6.5


def test_gradient_reaches_only_the_output() -> None:
    tensors = {name: frames(0.5, 0.6).requires_grad_() for name in ("output", "label", "teacher", "historical")}
    tensors["label"] = frames(0.1, 0.1)  # a label comes from the bank and never requires a gradient
    loss = losses.sevd_loss(
        tensors["output"], tensors["label"], masks(1, 1), tensors["teacher"] * 0.9, torch.tensor([[True, False]]), ONE
    ) + losses.consistency_loss(tensors["output"], tensors["historical"] * 0.9, ONE)
    loss.backward()
    assert tensors["output"].grad is not None
    assert tensors["output"].grad.abs().min() > 0
    assert tensors["teacher"].grad is None
    assert tensors["historical"].grad is None
