"""Clips as GoProShake describes them: a phone moved in space, its stabiliser, and a scene with depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.simulation.camera import at_depth
from selfhvd_tta.lab.simulation.foreground import poles_mask
from selfhvd_tta.lab.simulation.motion import Hand, draw_motion, read_motion
from selfhvd_tta.lab.simulation.scene import Image, plane_layer
from selfhvd_tta.lab.simulation.shake import ShakeSettings
from selfhvd_tta.lab.simulation.simulate import Scene, draw_exposure
from selfhvd_tta.lab.simulation.stabiliser import Stabiliser, stabilised

# A phone's main camera, 26 mm equivalent, is 0.72 frame widths long. H.264 as for the other kinds.
HANDHELD = ShakeSettings(width=640, height=360, focal=0.72, duty=(0.3, 0.9), readout=0.5, crf=10)


@dataclass(frozen=True)
class Handheld:
    """How a clip is filmed.

    Attributes:
        hand: motion that is drawn.
        log: motion that was recorded instead, a CSV (see :func:`selfhvd_tta.lab.simulation.motion.read_motion`).
        stabiliser: of the phone; None: none.
        depths: metres to the background and to poles in front of it.
    """

    hand: Hand = field(default_factory=Hand)
    log: Path | None = None
    stabiliser: Stabiliser | None = field(default_factory=Stabiliser)
    depths: tuple[float, float] = (6.0, 1.5)

    def scene(self, photo: Image, settings: ShakeSettings, seed: int, device: torch.device | str) -> Scene:
        """Draw what is filmed, for :func:`selfhvd_tta.lab.simulation.simulate.film`.

        Raises:
            InputError: the log cannot be read, or its camera turns away from the scene.
        """
        generator = np.random.default_rng(seed)
        if self.log is None:
            motion = draw_motion(generator, settings.frames, self.hand)
        else:
            motion = read_motion(self.log, settings.frames, self.hand.fps)
        camera = stabilised(motion, self.stabiliser, settings.focal * max(settings.width, settings.height))
        views = [at_depth(camera, motion.position, depth) for depth in self.depths]
        try:
            layers = [
                plane_layer(photo, view, mask, settings, generator, device)
                for view, mask in zip(views, (None, poles_mask), strict=True)
            ]
        except ValueError as error:
            hint = "Give a log of somebody who films one place."
            raise InputError(f"{self.log or 'the motion'}: {error}", hint) from error
        return Scene(tuple(layers), *draw_exposure(generator, settings), still=1)
