"""``--method auto``: adaptation where it is worth its time on this machine, otherwise transfer."""

from __future__ import annotations

from dataclasses import replace

from selfhvd_tta.events import Listener, Note, ignore
from selfhvd_tta.run.device import choose_device
from selfhvd_tta.run.networks import find_backbone
from selfhvd_tta.settings import Settings
from selfhvd_tta.weights import find_row
from selfhvd_tta.weights.rows import Bundled


def choose_method(settings: Settings, tell: Listener = ignore) -> Settings:
    """The settings with ``auto`` replaced by ``adapt`` or ``transfer``.

    Adaptation takes minutes on a GPU and hours on a CPU. There it is chosen only if the user asked for something that
    needs it: a number of steps, the adapted weights, or a backbone with strong weights.

    Args:
        settings: all settings; returned as they are if they name a method.
        tell: gets one line if adaptation is left out.

    Raises:
        UsageError, DeviceError: there is no such backbone or device.
    """
    if settings.method != "auto":
        return settings
    if not settings.networked:
        return replace(settings, method="transfer")
    if choose_device(settings.runtime.device, ignore).type != "cpu" or settings.needs_adaptation or _strong(settings):
        return replace(settings, method="adapt")
    tell(Note("method: transfer, because adaptation takes long on a CPU (--method adapt adapts anyway)"))
    return replace(settings, method="transfer")


def _strong(settings: Settings) -> bool:
    """Whether a backbone is named whose weights are its authors' or a repository's, not our small bundled ones."""
    if settings.backbone == "auto" or settings.weights is not None or settings.adapted is not None:
        return False
    if settings.backbone.startswith("hf:"):
        return True
    weights = find_backbone(settings.backbone)[1].weights
    return bool(weights) and not isinstance(find_row(weights[0]).source, Bundled)
