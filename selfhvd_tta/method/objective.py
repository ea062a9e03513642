"""What a step minimises for the drawn clips: L_s1 (Eq. 13) in stage 1, L_s2 (Eq. 14) in stage 2."""

from __future__ import annotations

import torch
from torch import Tensor

from selfhvd_tta.method import losses
from selfhvd_tta.method.labels import Rows
from selfhvd_tta.settings import AdaptationSettings


def objective(
    output: Tensor,
    rows: Rows,
    weight: Tensor,
    features: losses.Features | None,
    plan: AdaptationSettings,
    stage2: bool,
) -> dict[str, Tensor]:
    """The loss and its terms, by the names under which they are reported; ``loss`` is their weighted sum.

    Args:
        output: of the network for the drawn clips, (B, T, 3, h, w).
        rows: supervision of the clips, every tensor (B, T, ...), turned like them.
        weight: of every position, (B, T).
        features: of the perceptual term; None leaves it at 0.
        plan: weights of the terms, and which parts are on.
        stage2: which stage.
    """
    label, mask = rows.label, rows.mask
    zero = output.new_zeros(())
    beta = plan.perceptual_weight if features is not None else 0.0
    if not stage2:
        reconstruction = losses.reconstruction_loss(output, label, mask, weight)
        perceptual = zero
        if beta and features is not None:
            perceptual = losses.perceptual_loss(features, output, label, mask, weight)
        loss = losses.stage1_objective(reconstruction, perceptual, beta)
        return {"loss": loss, "rec": reconstruction, "vgg": perceptual}
    choice = rows.choice if plan.sis else torch.ones_like(rows.choice)
    sevd = losses.sevd_loss(output, label, mask, rows.teacher, choice, weight)
    consistency = zero
    if plan.scscm and rows.historical is not None:
        consistency = losses.consistency_loss(output, rows.historical, torch.ones_like(weight))
    perceptual = zero
    if beta and features is not None:
        pick = choice[:, :, None, None, None]
        target = torch.where(pick, label, rows.teacher)
        trust = torch.where(pick, mask, torch.ones_like(mask))
        perceptual = losses.perceptual_loss(features, output, target, trust, weight)
    loss = losses.stage2_objective(sevd, consistency, perceptual, plan.consistency_weight, beta)
    return {"loss": loss, "sevd": sevd, "scscm": consistency, "vgg": perceptual}
