"""VGG's structure against torchvision's, and its weights read in part from a server."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import gaussian_blur

from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.run.perceptual import PerceptualFeatures, Unavailable, layer_names, load_perceptual
from selfhvd_tta.weights import find, load, ranges
from selfhvd_tta.weights.cache import read_receipt
from tests.conftest import shared_path
from tests.hub_server import HubServer, hub, sha256  # noqa: F401 (a fixture)

REPO = "timm/vgg19.tv_in1k"
FILE = "model.safetensors"


@pytest.mark.parametrize("structure", ["vgg16", "vgg19"])
def test_every_layer_is_torchvisions_before_its_relu(structure: str) -> None:
    torch.manual_seed(0)
    reference = nn.ModuleDict({"features": make_layers(cfgs["D" if structure == "vgg16" else "E"])})
    reference.requires_grad_(False)
    images = torch.rand(2, 3, 35, 48)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    value = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    layers = iter(layer_names(structure))  # type: ignore[arg-type]
    for module in reference["features"]:  # type: ignore[attr-defined]
        value = module(value)
        if isinstance(module, torch.nn.Conv2d):
            layer = next(layers)
            if layer not in ("conv1_1", "conv2_2", "conv3_3", "conv4_1", "conv5_3"):
                continue
            network = PerceptualFeatures(layer, structure)  # type: ignore[arg-type]
            network.load(reference.state_dict())
            found = network(images)
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5)
            assert (found < 0).any(), "not rectified"
            assert found.shape[2:] == (35 // network.scale, 48 // network.scale)
    assert next(layers, None) is None, "torchvision has all our layers"


def test_trained_weights_tell_blur_from_noise() -> None:
    """The Caffe-trained VGG16 of the developers, as a stand-in: the same result as torchvision's own module."""
    weights = load_file(shared_path("weights/vgg16_features_to_relu4_3.fp16.safetensors"))
    reference = make_layers(cfgs["D"])
    full = reference.state_dict() | {name.removeprefix("features."): v.float() for name, v in weights.items()}
    reference.load_state_dict(full)
    reference.requires_grad_(False)
    network = PerceptualFeatures("conv4_3", "vgg16")
    network.load(weights)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = reference[:22]((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    blurry = gaussian_blur(images, 9)
    assert (network(blurry) - network(images)).abs().mean() > 0.1 * network(images).abs().mean()


def test_only_the_images_get_gradients() -> None:
    network = PerceptualFeatures("conv2_1").train()
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    network(images).abs().mean().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert all(name.startswith("features.") for name in network.state_dict())


def test_layers_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match="no layer 'conv3_5'") as error:
        PerceptualFeatures("conv3_5")
    assert "conv3_4" in error.value.hint
    with pytest.raises(UsageError, match="vgg16 has no layer 'conv3_4'"):
        PerceptualFeatures("conv3_4", "vgg16")
    assert len(layer_names()) == 16
    assert len(layer_names("vgg16")) == 13


def test_weights_of_another_network_are_refused() -> None:
    network = PerceptualFeatures("conv1_2")
    with pytest.raises(WeightsError, match="4 of 4 missing"):
        network.load({"conv.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"'features.0.weight' is 1, not 64x3x3x3"):
        network.load(network.state_dict() | {"features.0.weight": torch.ones(1)})


@pytest.fixture
def vgg() -> dict[str, Tensor]:
    """Weights up to conv2_2 and something large beyond, as in the file on the Hub."""
    torch.manual_seed(1)
    state = dict(PerceptualFeatures("conv2_2").state_dict())
    return state | {"features.10.weight": torch.ones(256, 128, 3, 3), "head.fc.weight": torch.ones(1000, 99)}


@pytest.fixture
def server(hub: HubServer, vgg: dict[str, Tensor]) -> HubServer:  # noqa: F811
    hub.add(REPO, {FILE: serialise(vgg)})
    return hub


def needed_bytes(content: bytes, names: set[str]) -> set[int]:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    wanted = set(range(8 + length))
    for name in names:
        begin, end = header[name]["data_offsets"]
        wanted |= set(range(8 + length + begin, 8 + length + end))
    return wanted


@pytest.mark.parametrize("layer", ["conv1_1", "conv2_2"])
def test_only_the_bytes_in_use_are_asked_for(server: HubServer, vgg: dict[str, Tensor], layer: str) -> None:
    seen: list[tuple[int, int | None]] = []
    network = load_perceptual(layer, offline=False, on_progress=lambda *step: seen.append(step))
    assert isinstance(network, PerceptualFeatures)
    assert all(torch.equal(value, vgg[name]) for name, value in network.state_dict().items())
    asked: list[int] = []
    for request in server.asked("GET", "/cdn/"):
        first, last = map(int, request.range.removeprefix("bytes=").split("-"))
        asked += range(first, last + 1)
    assert len(asked) == len(set(asked)), "no byte twice"
    assert set(asked) == needed_bytes(server.repositories[REPO].files[FILE], set(network.tensor_names))
    total = sum(value.numel() * 4 for value in network.state_dict().values())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_nine_megabytes_up_to_the_default_layer() -> None:
    state = PerceptualFeatures().state_dict()
    assert sum(value.numel() * 4 for value in state.values()) == 9_302_272
    assert "features.16.weight" in state
    assert "features.19.weight" not in state


def test_the_second_time_needs_no_network(server: HubServer) -> None:
    assert find("vgg19", offline=False).state == "downloadable"
    first = load_perceptual("conv1_2", offline=False)
    server.requests.clear()
    second = load_perceptual("conv1_2", offline=True)
    assert isinstance(first, PerceptualFeatures)
    assert isinstance(second, PerceptualFeatures)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not server.requests
    assert find("vgg19", offline=True).state == "here"
    receipt = read_receipt("vgg19-conv1_2")
    assert receipt is not None
    assert receipt.source_sha256 == sha256(server.repositories[REPO].files[FILE])


def test_the_digest_of_every_tensor_is_recorded(server: HubServer, vgg: dict[str, Tensor], tmp_path: Path) -> None:
    load_perceptual("conv1_2", offline=False)
    from selfhvd_tta.weights import load_file as load_weights

    config = load_weights(tmp_path / "cache" / "vgg19-conv1_2.safetensors").config
    assert config["tensors"] == {
        f"features.{n}.{kind}": sha256(vgg[f"features.{n}.{kind}"].numpy().tobytes())
        for n in (0, 2)
        for kind in ("weight", "bias")
    }


def test_the_whole_file_serves_if_it_was_downloaded_already(server: HubServer) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, FILE)
    server.requests.clear()
    assert isinstance(load_perceptual("conv1_2", offline=True), PerceptualFeatures)
    assert not server.requests


def test_a_broken_connection_goes_on_where_it_was(
    server: HubServer, vgg: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_BLOCK", 100)
    content = server.repositories[REPO].files[FILE]
    server.drops[sha256(content)] = [8, 5000, 1500, 200]
    network = load_perceptual("conv2_1", offline=False)
    assert isinstance(network, PerceptualFeatures)
    assert all(torch.equal(value, vgg[name]) for name, value in network.state_dict().items())


def test_a_token_does_not_go_to_the_storage(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret")
    assert isinstance(load_perceptual("conv1_1", offline=False), PerceptualFeatures)
    assert all(request.authorised for request in server.requests if "/resolve/" in request.path)
    assert not any(request.authorised for request in server.asked("GET", "/cdn/"))


def assert_goes_without(result: object, reason: str) -> None:
    assert isinstance(result, Unavailable)
    assert reason in result.reason
    assert "\n" not in result.reason
    assert result.hint


def test_what_cannot_be_had_is_gone_without(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_goes_without(load_perceptual("conv1_1", offline=True), "offline mode")
    assert not server.requests
    server.status = 503
    assert_goes_without(load_perceptual("conv1_1", offline=False), "status 503")
    server.status = 0
    files = server.repositories[REPO].files
    whole = files[FILE]
    files[FILE] = serialise({"other": torch.ones(3)})
    assert_goes_without(load_perceptual("conv1_1", offline=False), "has no 'features.0.weight'")
    files[FILE] = b"no safetensors at all, but long enough"
    assert_goes_without(load_perceptual("conv1_1", offline=False), "not a safetensors file")
    files[FILE] = whole[:8] + b"{" * 100 + whole[108:]
    assert_goes_without(load_perceptual("conv1_1", offline=False), "damaged safetensors header")
    files[FILE] = whole
    assert isinstance(load_perceptual("conv1_1", offline=False), PerceptualFeatures)


def test_a_server_without_ranges_is_not_read_to_the_end(server: HubServer) -> None:
    server.no_ranges = True
    assert_goes_without(load_perceptual("conv1_1", offline=False), "does not serve parts")


def test_values_that_are_not_finite_are_refused(server: HubServer, vgg: dict[str, Tensor]) -> None:
    broken = vgg["features.0.bias"].clone()
    broken[3] = float("inf")
    server.add(REPO, {FILE: serialise(vgg | {"features.0.bias": broken})})
    assert_goes_without(load_perceptual("conv1_1", offline=False), "'features.0.bias' is not finite")


def test_the_row_is_not_loaded_whole() -> None:
    with pytest.raises(WeightsError, match="in part only"):
        load("vgg19", offline=True)
