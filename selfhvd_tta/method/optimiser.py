"""Adam on torch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass
class Group:
    """Parameters with a common learning rate.

    Attributes:
        parameters: of the network.
        share: of the adaptation's learning rate.
        rate: of the next step.
    """

    parameters: list[nn.Parameter]
    share: float = 1.0
    rate: float = 0.0


class Adam:
    """The same bits as ``torch.optim.Adam(fused=True)``, whose constructor imports torch's compiler: 1.3 s of CPU time.

    Args:
        groups: all trainable parameters.

    Attributes:
        state: moments ``exp_avg`` and ``exp_avg_sq`` and the number of steps of every parameter, numbered through the
            groups; empty before the first step.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self.parameters = [p for group in self.groups for p in group.parameters]
        self.state: dict[int, dict[str, Tensor]] = {}

    def clear(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, bad: Tensor) -> None:
        """Update every parameter that has a gradient.

        Args:
            bad: (), 1 to skip the step (the gradients are not finite), else 0; the host is not asked.
        """
        number = 0
        for group in self.groups:
            chosen = []
            for parameter in group.parameters:
                if parameter.grad is not None:
                    if number not in self.state:
                        self.state[number] = {
                            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                        }
                    chosen.append((parameter, parameter.grad, self.state[number]))
                number += 1
            if not chosen:
                continue
            with torch.no_grad():
                adam(
                    [parameter for parameter, _, _ in chosen],
                    [gradient for _, gradient, _ in chosen],
                    [moments["exp_avg"] for _, _, moments in chosen],
                    [moments["exp_avg_sq"] for _, _, moments in chosen],
                    [],
                    [moments["step"] for _, _, moments in chosen],
                    fused=True,
                    found_inf=bad,
                    amsgrad=False,
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    lr=group.rate,
                    weight_decay=0.0,
                    eps=EPSILON,
                    maximize=False,
                )

    def load(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Continue with stored moments.

        Args:
            state: as the attribute; with any memory layout, on any device.
        """
        self.state = {}
        for number, stored in state.items():
            parameter = self.parameters[number]
            # The fused kernel walks through memory: moments need the memory layout of their parameter.
            self.state[number] = {
                name: torch.empty_like(parameter if tensor.dim() else tensor, device=parameter.device).copy_(tensor)
                for name, tensor in stored.items()
            }
