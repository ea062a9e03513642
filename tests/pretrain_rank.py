"""One of two processes of a training, for test_pretrain_distributed: ``python -m tests.pretrain_rank CONFIG.json``.

``torchrun`` would start it with the same environment.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from selfhvd_tta.backbones import Variant
from selfhvd_tta.backbones.estrnn import BACKBONE
from selfhvd_tta.lab.training import network, pretrain
from selfhvd_tta.lab.training.checkpoint import Run
from selfhvd_tta.lab.training.config import PretrainConfig
from selfhvd_tta.lab.training.distributed import ranks_of_environment
from selfhvd_tta.lab.training.loop import TrainingTask
from selfhvd_tta.lab.training.validation import ValidationClip

TINY = Variant("tiny", {"n_features": 2, "n_blocks": 1, "global_residual": True}, (), "rgb", (-0.5, 0.5))


def train_as_told(settings_file: Path) -> None:
    """Train, then write this process's own weights beside the checkpoint."""
    settings = json.loads(settings_file.read_text())
    config = PretrainConfig(**{**settings, "data": (Path(settings["data"]),), "output": Path(settings["output"])})
    network.discover = lambda: {"tiny": replace(BACKBONE, id="tiny", variants=(TINY,))}
    frames = (torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    clip = ValidationClip(frames, frames, torch.tensor([True, False]).numpy())
    pretrain.validation_sets = lambda _data: {"photos": [clip]}
    runs: list[Run] = []
    plain = pretrain.train

    def train(config: PretrainConfig, run: Run, task: TrainingTask) -> pretrain.PretrainProgress:
        runs.append(run)
        return plain(config, run, task)

    pretrain.train = train
    progress = pretrain.pretrain(config)
    rank = ranks_of_environment().rank
    torch.save({"network": runs[0].network.state_dict(), "loss": progress.loss}, config.output / f"rank{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_as_told(Path(sys.argv[1]))
