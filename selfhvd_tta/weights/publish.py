"""Uploads weights to the user's own Hub account, in the layout that :func:`load_hub` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfhvd_tta.errors import WeightsError
from selfhvd_tta.weights import hub
from selfhvd_tta.weights.store import CONFIG_FILE, WEIGHTS_FILE, load_file

# Licences by the Hub's names; any other is published as "other", under its own name.
_HUB_LICENCES = frozenset(
    {"mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}
    | {"cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "openrail"}
)


@dataclass(frozen=True)
class Published:
    """Where the weights are now.

    Attributes:
        url: page of the repository.
        commit: page of the commit.
        sha256: digest of the weights file.
        use: the command that uses them.
    """

    url: str
    commit: str
    sha256: str
    use: str


def model_card(repo: str, config: Mapping[str, Any], *, licence: str, sha256: str, parameters: int, about: str) -> str:
    """README of a repository: what the weights are for, what they were trained on, how to use them."""
    known = licence.lower() in _HUB_LICENCES
    head = ["library_name: selfhvd-tta", f"license: {licence.lower() if known else 'other'}"]
    if not known:
        head.append(f"license_name: {json.dumps(licence)}")
    head.append("tags: [video-deblurring, video-restoration, test-time-adaptation]")
    facts = {
        "Network": f"{config['backbone']}, variant {config['variant']}",
        "Numbers": f"{parameters:,}",
        "Trained on": config.get("trained_on") or "not stated",
        "Licence": licence,
        "SHA-256": f"`{sha256}`",
    }
    lines = [
        "---",
        *head,
        "---",
        "",
        f"# {repo.split('/')[-1]}",
        "",
        about or "Weights of a video deblurring network, for test-time adaptation to one video.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "```bash",
        f"selfhvd-tta deblur shaky.mp4 -o sharp.mp4 --backbone hf:{repo}",
        "```",
        "",
        f"`{WEIGHTS_FILE}` holds the state dict, `{CONFIG_FILE}` the network's name and configuration.",
        "",
    ]
    return "\n".join(lines)


def publish(
    path: Path, repo: str, *, licence: str = "", about: str = "", private: bool = False, token: str | None = None
) -> Published:
    """Push a file saved by :func:`selfhvd_tta.weights.save`, with its configuration and a model card, in one commit.

    Args:
        path: the safetensors file; it has to say which backbone and variant it is for.
        repo: ``owner/name``; created if it does not exist.
        licence: SPDX id; else the one that the file states.
        about: one paragraph for the card.
        private: create the repository as a private one.
        token: access token with the right to write; else the one of ``hf auth login``.

    Raises:
        WeightsError: the file does not say what it is for, no licence, no connection, or no right to write.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise WeightsError(f"'{repo}' is not the name of a Hub repository", "Write it as owner/name.")
    weights = load_file(path)
    if not weights.config.get("backbone") or not weights.config.get("variant"):
        hint = "Save it with --save-adapted, or convert it with: selfhvd-tta weights convert --backbone ID:VARIANT"
        raise WeightsError(f"{path} does not say which backbone it is for", hint)
    licence = licence or str(weights.config.get("licence") or "")
    if not licence:
        raise WeightsError(
            f"{path} states no licence", "Say under which one you publish it, for example --licence MIT."
        )
    if hub.offline_wanted():
        raise WeightsError("Publishing needs the network (offline mode is on)", "Unset HF_HUB_OFFLINE.")
    config = {**weights.config, "licence": licence, "sha256": weights.sha256, "format": 1}
    parameters = sum(tensor.numel() for tensor in weights.tensors.values())
    card = model_card(repo, config, licence=licence, sha256=weights.sha256, parameters=parameters, about=about)
    api = HfApi(token=token)
    try:
        with hub.explained(f"hf:{repo}", repo), hub.quiet():
            page = api.create_repo(repo, private=private, exist_ok=True)
            commit = api.create_commit(
                repo,
                [
                    CommitOperationAdd(WEIGHTS_FILE, str(path)),
                    CommitOperationAdd(CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"),
                    CommitOperationAdd("README.md", card.encode()),
                ],
                commit_message=f"Weights of {config['backbone']}:{config['variant']}",
            )
    except WeightsError as error:
        if isinstance(error.__cause__, LocalTokenNotFoundError):
            raise WeightsError("You are not logged in to the Hub", "Log in with: hf auth login") from error
        raise
    return Published(
        url=str(page),
        commit=commit.commit_url,
        sha256=weights.sha256,
        use=f"selfhvd-tta deblur shaky.mp4 -o sharp.mp4 --backbone hf:{repo}",
    )
