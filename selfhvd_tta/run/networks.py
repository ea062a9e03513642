"""From names in the settings to networks with weights on a device."""

from __future__ import annotations

from pathlib import Path

import torch

from selfhvd_tta import backbones, flows, weights
from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.events import Listener, Loaded, Note, Progress, ignore
from selfhvd_tta.files import sha256_of
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.flows.global_motion import GlobalMotionFirst
from selfhvd_tta.method.composite import Merger
from selfhvd_tta.method.merge_network import MergeNetwork
from selfhvd_tta.plugins import check_name
from selfhvd_tta.run import perceptual
from selfhvd_tta.run.device import CPU, wants_bf16
from selfhvd_tta.settings import Settings

HUB_BACKBONE = ("dstnetplus", "base-gopro")
OFFLINE_BACKBONE = ("relay", "lite")
BUNDLED_FLOW = "shake"
HUB_FLOW = "sea-raft"
MERGER = "merge-shake"
VGG = "vgg19"


def load_backbone(settings: Settings, device: torch.device, listen: Listener) -> Network:
    """Build the network that the settings name and load its weights.

    ``auto`` takes the strongest pretrained one that is here or can be downloaded, else the bundled one, and says so;
    if nothing is fine-tuned it is the bundled one, because such runs are meant to be quick.

    Raises:
        UsageError: no such backbone or variant.
        WeightsError: its weights are not available or do not fit.
    """
    if settings.backbone.startswith("hf:"):
        loaded = weights.load_hub(
            settings.backbone[3:], offline=settings.runtime.offline, on_progress=_downloads(listen)
        )
        name = f"{loaded.config.get('backbone')}:{loaded.config.get('variant')}"
        backbone, variant = find_backbone(name)
        listen(_loaded("backbone", settings.backbone, loaded))
        return _finish(backbone, variant, loaded.tensors, settings.backbone, device)
    if settings.adapted is not None:
        return _load_adapted(settings, settings.adapted, device, listen)
    if settings.backbone == "auto":
        bundled = find_backbone(":".join(OFFLINE_BACKBONE))
        backbone, variant = _automatic_backbone(settings, bundled, listen) if settings.learns else bundled
    else:
        backbone, variant = find_backbone(settings.backbone)
    if settings.weights is not None:
        mine = weights.load_file(Path(settings.weights))
        listen(_loaded("backbone", settings.weights, mine))
        return _finish(backbone, variant, mine.tensors, settings.weights, device)
    if not variant.weights:
        raise WeightsError(
            f"there are no pretrained weights for {backbone.id}:{variant.name}",
            "Give your own with --weights file.safetensors, or choose another backbone (selfhvd-tta models).",
        )
    row = variant.weights[0]
    found = _fetch(row, settings, listen)
    listen(_loaded("backbone", row, found))
    return _finish(backbone, variant, found.tensors, f"{row} {found.sha256[:8]}", device)


def _load_adapted(settings: Settings, path: str, device: torch.device, listen: Listener) -> Network:
    """Load the network that an earlier run adapted and saved."""
    mine = weights.load_file(Path(path))
    if "backbone" not in mine.config or "variant" not in mine.config:
        raise WeightsError(
            f"{path}: does not say which backbone it is for",
            "Give files that --save-adapted wrote, or use --weights with --backbone.",
        )
    name = f"{mine.config['backbone']}:{mine.config['variant']}"
    if settings.backbone not in ("auto", name, mine.config["backbone"]):
        raise UsageError(f"{path} holds {name}, not {settings.backbone}", "Leave --backbone out.")
    backbone, variant = find_backbone(name)
    listen(_loaded("backbone", path, mine))
    return _finish(backbone, variant, mine.tensors, path, device)


def save_adapted(network: Network, path: str, video: str, steps: int) -> None:
    """Write the network's weights in the layout that ``--adapted`` and ``weights publish`` read.

    Raises:
        WeightsError: the file cannot be written.
    """
    config = {
        "backbone": network.backbone.id,
        "variant": network.variant.name,
        "config": dict(network.variant.config),
        "trained_on": f"{network.weights}, adapted to {Path(video).name} in {steps} steps",
    }
    weights.save(Path(path), network.state_dict(), config)


def find_backbone(name: str) -> tuple[Backbone, Variant]:
    """Descriptor and variant of ``id`` or ``id:variant``.

    Raises:
        UsageError: no such backbone or variant.
    """
    known = backbones.discover()
    check_name("backbone", name, {each.id: [v.name for v in each.variants] for each in known.values()})
    backbone_id, _, variant = name.partition(":")
    return known[backbone_id], known[backbone_id].variant(variant or None)


def _automatic_backbone(
    settings: Settings, fallback: tuple[Backbone, Variant], listen: Listener
) -> tuple[Backbone, Variant]:
    if HUB_BACKBONE[0] not in backbones.discover():
        listen(Note(f"backbone: {':'.join(OFFLINE_BACKBONE)} (bundled)"))
        return fallback
    backbone, variant = find_backbone(":".join(HUB_BACKBONE))
    row = variant.weights[0]
    try:
        _fetch(row, settings, listen)
    except WeightsError as error:
        if not settings.runtime.offline:  # reported in one note, see Equipment.load
            listen(Note(f"backbone: {':'.join(OFFLINE_BACKBONE)} (bundled), because {error.message}"))
        return fallback
    listen(Note(f"backbone: {backbone.id}:{variant.name}, the strongest pretrained one available"))
    return backbone, variant


def _finish(
    backbone: Backbone, variant: Variant, tensors: dict[str, torch.Tensor], name: str, device: torch.device
) -> Network:
    raw = backbone.build(**variant.config)
    _fill(raw, tensors, name)
    return Network(raw, backbone, variant, name).to(device).eval()


def _fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Put weights, in whatever precision they are stored, into a module.

    Raises:
        WeightsError: they do not fit.
    """
    weights.check_state(module.state_dict(), tensors, name)
    module.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    )


def find_flow(name: str) -> tuple[flows.Flow, flows.FlowVariant]:
    """Descriptor and variant of ``id`` or ``id:variant``.

    Raises:
        UsageError: no such flow or variant.
    """
    known = flows.discover()
    check_name("flow", name, {each.id: [v.name for v in each.variants] for each in known.values()})
    flow_id, _, variant = name.partition(":")
    return known[flow_id], known[flow_id].variant(variant or None)


def load_flow(settings: Settings, device: torch.device, listen: Listener) -> FlowEstimator:
    """Build the flow estimator that the settings name.

    ``auto`` takes SEA-RAFT if its weights are here or can be downloaded, else the bundled one, and says so.

    Raises:
        UsageError: no such flow or variant.
        WeightsError: its weights are not available or do not fit.
    """
    name = settings.alignment.flow
    if name != "auto":
        return _build_flow(name, settings, device, listen)
    try:
        loaded = _build_flow(HUB_FLOW, settings, device, listen)
    except WeightsError as error:
        if not settings.runtime.offline:  # reported in one note, see Equipment.load
            listen(Note(f"flow: {BUNDLED_FLOW} (bundled), because {error.message}"))
        return _build_flow(BUNDLED_FLOW, settings, device, listen)
    listen(Note(f"flow: {loaded.name}"))
    return loaded


def _build_flow(name: str, settings: Settings, device: torch.device, listen: Listener) -> FlowEstimator:
    flow, variant = find_flow(name)
    estimator = flow.build(**variant.config)
    if flow.load is not None and variant.weights:
        found = _fetch(variant.weights[0], settings, listen)
        flow.load(estimator, found.tensors)
        listen(_loaded("flow", variant.weights[0], found))
    estimator = estimator.to(device).eval().requires_grad_(False)
    if "bfloat16" in flow.autocast and wants_bf16(settings, device):
        for part in estimator.modules():
            if isinstance(part, flows.FlowEstimator):
                part.autocast = torch.bfloat16
    estimator.name = f"{flow.id}:{variant.name}"
    if settings.alignment.global_motion and not isinstance(estimator, GlobalMotionFirst):
        first = GlobalMotionFirst(estimator)
        first.name = f"global motion first, then {estimator.name}"
        return first
    return estimator


def check_backbone(settings: Settings) -> Backbone | None:
    """Raises what :func:`load_backbone` would raise, without a download.

    Returns:
        The backbone's descriptor; None if there is none, or ``auto`` or the Hub has yet to decide.

    Raises:
        UsageError, WeightsError: as :func:`load_backbone`.
    """
    name, offline = settings.backbone, settings.runtime.offline
    if not settings.networked:
        return None
    if settings.adapted is None and name == "auto":
        if settings.weights is not None:
            weights.load_file(Path(settings.weights))
        return None
    if settings.adapted is None and settings.weights is None:
        if name.startswith("hf:"):
            return load_backbone(settings, CPU, ignore).backbone if offline else None
        backbone, variant = find_backbone(name)
        if variant.weights and _downloadable(variant.weights[0], settings):
            return backbone
    return load_backbone(settings, CPU, ignore).backbone


def check_flow(settings: Settings) -> None:
    """Raises what :func:`load_flow` would raise, without a download.

    Raises:
        UsageError, WeightsError: as :func:`load_flow`.
    """
    if settings.alignment.flow == "auto":
        return
    _, variant = find_flow(settings.alignment.flow)
    if variant.weights and not _downloadable(variant.weights[0], settings):
        load_flow(settings, CPU, ignore)


def _downloadable(row: str, settings: Settings) -> bool:
    """Whether weights are not here, but nothing is known to prevent their download."""
    accepted = settings.accept_non_commercial or not weights.find_row(row).non_commercial
    return accepted and weights.find(row, offline=settings.runtime.offline).state == "downloadable"


def load_merger(settings: Settings, device: torch.device, listen: Listener) -> Merger | None:
    """The network that merges aligned sharp frames at the end; None where they are blended by weights.

    Raises:
        WeightsError: its weights, or those of the user's file, are damaged or do not fit.
    """
    if settings.alignment.merge == "weighted":
        return None
    mine = settings.alignment.merge_weights
    found = _fetch(MERGER, settings, listen) if mine is None else weights.load_file(mine)
    network = MergeNetwork(autocast=torch.bfloat16 if wants_bf16(settings, device) else None)
    _fill(network, found.tensors, mine or MERGER)
    listen(_loaded("merging network", mine or MERGER, found))
    return network.to(device).eval().requires_grad_(False)


def load_features(settings: Settings, device: torch.device, listen: Listener) -> torch.nn.Module | None:
    """VGG19 features for the perceptual term; None, and a note, if they are not available.

    Raises:
        WeightsError: they are not available, and the paper is to be followed to the letter.
    """
    if settings.adaptation.perceptual_weight == 0 or settings.adaptation.iters == 0:
        return None
    result = perceptual.load_perceptual(
        settings.adaptation.vgg_layer, offline=settings.runtime.offline, on_progress=_downloads(listen)
    )
    if isinstance(result, perceptual.Unavailable):
        if settings.literal:
            hint = "--perceptual-weight 0 leaves the perceptual loss out."
            raise WeightsError(f"--literal needs VGG19: {result.reason}", hint)
        if not settings.runtime.offline:  # reported in one note, see Equipment.load
            listen(Note(f"perceptual loss: off, because {result.reason}"))
        return None
    row, here = weights.find_row(VGG), weights.find(VGG, offline=True)
    assert here.path is not None
    listen(Loaded("perceptual loss", VGG, str(here.path), sha256_of(here.path), row.licence))
    return result.to(device)


def _fetch(row: str, settings: Settings, listen: Listener) -> weights.Weights:
    """Load the weights of a row of the table and report their notices and licence."""
    found = weights.load(
        row,
        offline=settings.runtime.offline,
        on_progress=_downloads(listen),
        accept_non_commercial=settings.accept_non_commercial,
    )
    for notice in found.notices:
        listen(Note(notice))
    return found


def _loaded(role: str, name: str, found: weights.Weights) -> Loaded:
    licence = "" if found.row is None else found.row.licence
    return Loaded(role, name, str(found.path), found.sha256, licence)


def _downloads(listen: Listener) -> weights.OnProgress:
    def tell(done: int, total: int | None) -> None:
        listen(Progress("download", done, total, "bytes"))

    return tell
