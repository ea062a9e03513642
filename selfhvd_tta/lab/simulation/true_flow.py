"""The motion between two frames of a simulated clip, from its camera and its layers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from selfhvd_tta.lab.simulation.camera import Array
from selfhvd_tta.lab.simulation.scene import Layer, pixel_grid, project, sample
from selfhvd_tta.lab.simulation.simulate import SimulatedClip


def true_flow(clip: SimulatedClip, source: int, target: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """True displacement from mid exposure of frame ``source`` to that of frame ``target``.

    Poses are taken once per row of the frames, not per pixel, and linear between rows.

    Returns:
        Flow (H, W, 2) in pixels, x right, y down: where each pixel of ``source`` is in ``target``; and a mask (H, W),
        true where that point lies within the frame and is not hidden there by another layer.
    """
    height, width = clip.blurry.shape[1:3]
    points = pixel_grid(height, width)
    fronts = _front_layer(clip, points, source)
    flow = np.zeros((height, width, 2))
    visible = np.zeros((height, width), bool)
    limit = np.array([(width - 1) / 2, (height - 1) / 2])
    for index, layer in enumerate(clip.layers):
        mine = fronts == index
        if not mine.any():
            continue
        on_plane = project(_views(clip, layer, source)[:, None], points)[mine]
        back = np.linalg.inv(_views(clip, layer, target))
        found = points[mine]
        for _ in range(6 if len(back) > 1 else 1):  # the instant depends on the row that is looked for
            found = project(_at_rows(back, found[:, 1] + limit[1]), on_plane)
        flow[mine] = found - points[mine]
        inside = (np.abs(found) <= limit).all(-1)
        visible[mine] = inside & (_front_layer(clip, found, target) == index)
    return flow.astype(np.float32), visible


def _views(clip: SimulatedClip, layer: Layer, frame: int) -> Array:
    """Homographies (H, 3, 3) from the rows of a frame to the plane; (1, 3, 3) with a global shutter."""
    if clip.settings.readout == 0:
        return layer.view(np.array([float(frame)]))
    height = clip.blurry.shape[1]
    rows = np.arange(height) - (height - 1) / 2
    return layer.view(frame + clip.settings.readout * rows / clip.settings.height)


def _at_rows(matrices: Array, rows: Array) -> Array:
    """Linear interpolation of (H, 3, 3) matrices at any rows (n,): (n, 3, 3)."""
    if len(matrices) == 1:
        return matrices
    place = np.clip(rows, 0, len(matrices) - 1.001)
    below = place.astype(int)
    share = (place - below)[:, None, None]
    return matrices[below] * (1 - share) + matrices[below + 1] * share


def _front_layer(clip: SimulatedClip, points: Array, frame: int) -> NDArray[np.int64]:
    """Index of the layer that is seen at these points (..., 2) of a frame."""
    flat = points.reshape(-1, 2)
    front = np.zeros(len(flat), np.int64)
    for index, layer in enumerate(clip.layers[1:], 1):
        rows = flat[:, 1] + (clip.blurry.shape[1] - 1) / 2
        on_plane = project(_at_rows(_views(clip, layer, frame), rows), flat)
        grid = torch.from_numpy(on_plane).float().to(layer.texture.device)
        front[sample(layer.texture[:, 3:], grid[None, None])[0, 0, 0].cpu().numpy() > 0.5] = index
    return front.reshape(points.shape[:-1])
