"""What a step minimises for the clips that were drawn: L_s1 (Eq. 13) in stage 1, L_s2 (Eq. 14) in stage 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfhvd_tta.method import losses
from selfhvd_tta.method.labels import Rows
from selfhvd_tta.method.sampling import Draw
from selfhvd_tta.settings import AdaptationSettings


def objective(
    output: Tensor,
    draws: Sequence[Draw],
    supervision: Sequence[Rows],
    weight: Tensor,
    features: nn.Module | None,
    plan: AdaptationSettings,
    stage2: bool,
) -> dict[str, Tensor]:
    """The loss and its terms, by the names under which they are reported; ``loss`` is their weighted sum.

    Args:
        output: of the network for the drawn clips, (B, T, 3, h, w).
        draws: B clips; what supervises them is turned as they were.
        supervision: one :class:`Rows` of T rows for each.
        weight: of every position, (B, T).
        features: of the perceptual term; None leaves it at 0.
        plan: weights of the terms, and which parts are on.
        stage2: which stage.
    """
    turned = [d.turned for d in draws]
    label = torch.stack([t(s.label) for t, s in zip(turned, supervision, strict=True)])
    mask = torch.stack([t(s.mask) for t, s in zip(turned, supervision, strict=True)])
    zero = output.new_zeros(())
    beta = plan.perceptual_weight if features is not None else 0.0
    if not stage2:
        reconstruction = losses.reconstruction_loss(output, label, mask, weight)
        perceptual = zero
        if beta and features is not None:
            perceptual = losses.perceptual_loss(features, output, label, mask, weight)
        loss = losses.stage1_objective(reconstruction, perceptual, beta)
        return {"loss": loss, "rec": reconstruction, "vgg": perceptual}
    teacher = torch.stack([t(s.teacher) for t, s in zip(turned, supervision, strict=True)])
    choice = torch.stack([s.choice for s in supervision])
    if not plan.sis:
        choice = torch.ones_like(choice)
    sevd = losses.sevd_loss(output, label, mask, teacher, choice, weight)
    consistency = zero
    if plan.scscm and supervision[0].historical is not None:
        historical = torch.stack(
            [t(s.historical) for t, s in zip(turned, supervision, strict=True) if s.historical is not None]
        )
        consistency = losses.consistency_loss(output, historical, torch.ones_like(weight))
    perceptual = zero
    if beta and features is not None:
        pick = choice[:, :, None, None, None]
        target = torch.where(pick, label, teacher)
        trust = torch.where(pick, mask, torch.ones_like(mask))
        perceptual = losses.perceptual_loss(features, output, target, trust, weight)
    loss = losses.stage2_objective(sevd, consistency, perceptual, plan.consistency_weight, beta)
    return {"loss": loss, "sevd": sevd, "scscm": consistency, "vgg": perceptual}
