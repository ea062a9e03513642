"""Direct fit of a homography, and of the blur between the two frames, to their grey values.

The model: ``source(p) = mean over t of target(M(p + position(t)))`` in linear light, compared after the tone curve, up
to a gain and an offset. Fitting ``M`` alone to low-passed frames aligns centroids. Fitting the blur path along with it
(:mod:`selfhvd_tta.flows.blur_path`) aligns mid-exposures, and compares like with like at full bandwidth.

Levenberg-Marquardt over the most textured pixels with Tukey's biweight, so that what moves by itself does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from selfhvd_tta.flows.blur_path import SOFTNESS, BlurPath, correlate

TRANSLATION = (2, 5)
# Below this the square root's slope runs away; about 2.5 of 255 before linearisation.
DARKEST = 1e-4
# Tukey's biweight rejects residuals beyond this many robust standard deviations.
REJECT = 4.0
# Noise is estimated from this quantile of the absolute residuals; second: that quantile of a normal one, in sigma.
QUANTILE = 0.3
QUANTILE_OF_NORMAL = 0.3853
# Weight of (bend / velocity)^2 in the cost; on simulated shake a quarter and three times of it align slightly worse.
BEND_PRIOR = 0.02
# A fit needs that many of its pixels within the target.
FEWEST_PIXELS = 200
# A pixel counts as explained if its residual is below this share of the typical contrast.
EXPLAINED = 0.5
# Pixels per product of matrices.
PIECE = 1600
# A step that lowers the cost by a smaller share than this is the last one.
CONVERGED = 1e-3


def linear(gray: np.ndarray) -> np.ndarray:
    """Grey values in [0, 1] to linear light, with 2 as the exponent of the tone curve (sRGB's is 2.2 on average)."""
    return gray * gray


def tone(light: np.ndarray) -> np.ndarray:
    """The inverse of :func:`linear`, bounded away from 0."""
    return np.sqrt(np.maximum(light, DARKEST))


def warp(image: np.ndarray, matrix: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """``image`` at ``matrix(p)`` for every pixel p; borders replicated."""
    height, width = image.shape[:2]
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences along x and y, per pixel."""
    return (
        cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE),
        cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE),
    )


def rescaled(matrix: np.ndarray, fx: float, fy: float) -> np.ndarray:
    """A homography between frames that were resized by (fx, fy), pixel centres at integers."""
    resize = np.array([[fx, 0, 0.5 * fx - 0.5], [0, fy, 0.5 * fy - 0.5], [0, 0, 1.0]])
    scaled = resize @ matrix @ np.linalg.inv(resize)
    return scaled / scaled[2, 2]


@dataclass(frozen=True)
class Estimate:
    """State of a fit.

    Attributes:
        matrix: (3, 3), source to target pixels.
        path: blur of the source relative to the target.
        noise: robust standard deviation of the residual, grey values in [0, 1].
        support: share of the fitted pixels that the estimate explains to within ``EXPLAINED`` of the typical contrast;
            about 0.2 by chance.
        spread: standard error of the displacement in pixels, median over the frame, by the curvature of the fit;
            infinite where nobody asked for it.
        gain, offset: ``source = gain * prediction + offset`` in grey values.
    """

    matrix: np.ndarray
    path: BlurPath = field(default_factory=BlurPath)
    noise: float = np.inf
    support: float = 0.0
    spread: float = np.inf
    gain: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class _Evaluation:
    """Prediction at the fitted pixels: residual after gain and offset, and weights.

    Attributes:
        moved: the target, warped; (H, W) linear light.
        light: that, blurred along the path.
        predicted: grey values of it at the fitted pixels.
    """

    residual: np.ndarray
    inside: np.ndarray
    weight: np.ndarray
    noise: float
    gain: float
    offset: float
    support: float
    moved: np.ndarray
    light: np.ndarray
    predicted: np.ndarray


class PhotometricFit:
    """Fits homography and blur path of one pair at one resolution.

    Args:
        source, target: (H, W) float32, linear light.
        smoothing: standard deviation in pixels of the Gaussian that both are low-passed with.
        pixels: how many pixels take part.
    """

    def __init__(self, source: np.ndarray, target: np.ndarray, smoothing: float, pixels: int) -> None:
        self.height, self.width = source.shape
        self.smoothing = smoothing
        self.source = tone(cv2.GaussianBlur(source, (0, 0), smoothing))
        # The rest of the smoothing is in the kernel of the path.
        self.target = cv2.GaussianBlur(target, (0, 0), np.sqrt(smoothing**2 - SOFTNESS**2))
        self._choose_pixels(pixels)

    def _choose_pixels(self, pixels: int) -> None:
        """The most textured pixels, with texture relative to its surroundings so that they cover the frame."""
        gx, gy = gradient(self.source)
        strength = np.abs(gx) + np.abs(gy)
        strength /= np.sqrt(cv2.blur(strength, (33, 33)) + 1e-4)
        border = min(3, min(self.height, self.width) // 8)
        strength[:border] = strength[self.height - border :] = 0
        strength[:, :border] = strength[:, self.width - border :] = 0
        count = min(pixels, strength.size)
        self.index = np.sort(np.argpartition(strength.ravel(), -count)[-count:])
        rows, columns = np.divmod(self.index, self.width)
        self.columns, self.rows = columns.astype(np.float32), rows.astype(np.float32)
        # Coordinates for the generators: centred, in half widths.
        self.x = (self.columns - (self.width - 1) / 2) / (self.width / 2)
        self.y = (self.rows - (self.height - 1) / 2) / (self.width / 2)
        self.observed = self.source.ravel()[self.index]
        detail = self.source - cv2.GaussianBlur(self.source, (0, 0), 4 * self.smoothing)
        self.contrast = float(np.median(np.abs(detail.ravel()[self.index])))

    def fit(
        self,
        start: Estimate,
        iterations: int,
        *,
        blur: bool = False,
        bend: bool = False,
        only: tuple[int, ...] | None = None,
        spread: bool = False,
    ) -> Estimate:
        """Improve ``start``; its own state comes back where nothing better is found.

        Args:
            iterations: most evaluations.
            blur: fit the velocity of the path as well; it must not be zero at the start, a saddle point.
            bend: fit the bend of the path as well.
            only: generators of the homography that may change (``TRANSLATION``), else all eight.
            spread: find the standard error of the displacement, too.
        """
        free = list(range(8) if only is None else only)
        if blur:
            free += [8, 9, 10, 11] if bend else [8, 9]
        state = start
        now = self._evaluate(state)
        if now is None:
            return replace(start, noise=np.inf, support=0.0, spread=np.inf)
        noise = now.noise
        cost = _cost(now, noise) + _bend_cost(state.path)
        damping = 1e-3
        jacobian: np.ndarray | None = None
        for _ in range(iterations):
            if jacobian is None:
                jacobian = self._jacobian(now, state.path, free)
            normal, slope = _normal_equations(jacobian, now.weight, now.residual)
            if blur and bend:
                # The prior on the bend, in the units of the weighted squares.
                stiffness = _bend_stiffness(state.path) * noise**2 * REJECT**2 / 3 * len(now.residual)
                for axis in (0, 1):
                    place = len(free) - 2 + axis
                    normal[place, place] += stiffness
                    slope[place] -= stiffness * state.path.bend[axis]
            normal[np.diag_indices_from(normal)] *= 1 + damping
            normal[np.diag_indices_from(normal)] += 1e-12
            step = np.zeros(12)
            step[free] = np.linalg.solve(normal, slope)
            trial = self._moved(state, step)
            then = self._evaluate(trial)
            trial_cost = np.inf if then is None else _cost(then, noise) + _bend_cost(trial.path)
            if then is not None and trial_cost < cost:
                converged = cost - trial_cost < CONVERGED * cost
                state, now, cost, jacobian = trial, then, trial_cost, None
                damping = max(damping / 5, 1e-6)
                if converged:
                    break
            else:
                damping = max(damping * 10, 1e-3)
                if damping > 10:
                    break
        return replace(
            state,
            noise=now.noise,
            support=now.support,
            spread=self._spread(now, state.path, free) if spread else np.inf,
            gain=now.gain,
            offset=now.offset,
        )

    def initial_path(self, estimate: Estimate) -> tuple[BlurPath, float]:
        """Blur of the source relative to the target by second moments, and the same of the target where it is larger.

        To second order, blurring adds half the trace of covariance times Hessian. A straight uniform path of velocity
        v has the covariance v v^T / 3.

        Returns:
            The path for the source, straight and never of zero length, and how many times as much variance (at the
            direction where each is largest) the target has; infinite if only the target is blurred.
        """
        now = self._evaluate(estimate)
        if now is None:
            return BlurPath((0.5, 0.0)), 0.0
        moved = correlate(warp(self.target, estimate.matrix, cv2.INTER_CUBIC), BlurPath().moment(0))
        slope = (0.5 / tone(moved)).ravel()[self.index]
        gx, gy = gradient(moved)
        gxx, gxy = gradient(gx)
        _, gyy = gradient(gy)
        columns = [factor * part.ravel()[self.index] * slope for factor, part in ((0.5, gxx), (1, gxy), (0.5, gyy))]
        jacobian = np.concatenate([np.stack(columns), self._jacobian(now, estimate.path, list(range(8)))])
        normal, slope_of_cost = _normal_equations(jacobian, now.weight, now.residual)
        normal[np.diag_indices_from(normal)] *= 1 + 1e-4
        normal[np.diag_indices_from(normal)] += 1e-12
        xx, xy, yy = np.linalg.solve(normal, slope_of_cost)[:3]
        variances, axes = np.linalg.eigh(np.array([[xx, xy], [xy, yy]]))
        vx, vy = axes[:, 1] * np.sqrt(3 * np.clip(variances[1], 0.1, 9.0))
        ratio = max(-variances[0], 0.0) / max(variances[1], 1e-6)
        return BlurPath((vx, vy)), float(ratio)

    def _evaluate(self, state: Estimate) -> _Evaluation | None:
        """None where too few pixels of the source lie within the target."""
        inside = self._inside(state)
        if inside.sum() < min(FEWEST_PIXELS, len(self.index) // 4):
            return None
        moved = warp(self.target, state.matrix, cv2.INTER_CUBIC)
        light = correlate(moved, state.path.moment(0))
        predicted = tone(light.ravel()[self.index])
        residual, weight, noise, (gain, offset) = _without_gain_and_offset(self.observed, predicted, inside)
        support = float((np.abs(residual[inside]) < EXPLAINED * self.contrast).mean())
        return _Evaluation(residual, inside, weight, noise, gain, offset, support, moved, light, predicted)

    def _jacobian(self, now: _Evaluation, path: BlurPath, free: list[int]) -> np.ndarray:
        """Derivatives by the generators of the homography (0 to 7), velocity (8, 9), bend (10, 11): (free, pixels)."""
        # d tone / d light = 1 / (2 tone)
        slope = 0.5 / now.predicted
        gx, gy = (part.ravel()[self.index] * slope * (self.width / 2) for part in gradient(now.light))
        radial = gx * self.x + gy * self.y
        columns = {
            0: lambda: gx * self.x,
            1: lambda: gx * self.y,
            2: lambda: gx,
            3: lambda: gy * self.x,
            4: lambda: gy * self.y,
            5: lambda: gy,
            6: lambda: -radial * self.x,
            7: lambda: -radial * self.y,
        }
        jacobian = np.empty((len(free), len(self.index)), np.float32)
        for row, place in enumerate(free):
            if place < 8:
                jacobian[row] = columns[place]()
            elif place % 2 == 0:
                # Velocity and bend each come as a pair, x and y.
                along = gradient(correlate(now.moved, path.moment(1 if place == 8 else 2)))
                for axis, part in enumerate(along):
                    jacobian[row + axis] = part.ravel()[self.index] * slope
        return jacobian

    def _inside(self, state: Estimate) -> np.ndarray:
        """Which fitted pixels, with the reach of the blur around them, lie within the target."""
        m = state.matrix
        depth = m[2, 0] * self.columns + m[2, 1] * self.rows + m[2, 2]
        x = (m[0, 0] * self.columns + m[0, 1] * self.rows + m[0, 2]) / depth
        y = (m[1, 0] * self.columns + m[1, 1] * self.rows + m[1, 2]) / depth
        reach = np.hypot(*state.path.velocity) + np.hypot(*state.path.bend)
        within = (x >= reach) & (x <= self.width - 1 - reach) & (y >= reach) & (y <= self.height - 1 - reach)
        return within & (depth > 0.1)

    def _moved(self, state: Estimate, step: np.ndarray) -> Estimate:
        """``state`` after a step; homographies compose, so that the generators always act on the source's side."""
        half = self.width / 2
        to_unit = np.array(
            [[1 / half, 0, -(self.width - 1) / 2 / half], [0, 1 / half, -(self.height - 1) / 2 / half], [0, 0, 1]]
        )
        change = np.eye(3) + np.array([step[0:3], step[3:6], [step[6], step[7], 0]])
        matrix = state.matrix @ np.linalg.inv(to_unit) @ change @ to_unit
        velocity = np.array(state.path.velocity) + np.clip(step[8:10], -2, 2)
        bend = np.array(state.path.bend) + np.clip(step[10:12], -1.5, 1.5)
        path = BlurPath((float(velocity[0]), float(velocity[1])), (float(bend[0]), float(bend[1])))
        return Estimate(matrix / matrix[2, 2], path)

    def _spread(self, now: _Evaluation, path: BlurPath, free: list[int]) -> float:
        """Median standard error of the displacement over the fitted pixels, in pixels."""
        generators = [place for place in free if place < 8]
        normal, _ = _normal_equations(self._jacobian(now, path, generators), now.weight, now.residual)
        normal[np.diag_indices_from(normal)] += 1e-12
        covariance = np.linalg.inv(normal) * now.noise**2
        x, y = self.x[::37], self.y[::37]
        zero, one = np.zeros_like(x), np.ones_like(x)
        along_x = np.stack([x, y, one, zero, zero, zero, -x * x, -x * y])[generators]
        along_y = np.stack([zero, zero, zero, x, y, one, -x * y, -y * y])[generators]
        variance = sum((moves * (covariance @ moves)).sum(axis=0) for moves in (along_x, along_y))
        return float(np.sqrt(np.median(variance)) * self.width / 2)


def _normal_equations(jacobian: np.ndarray, weight: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``J W J^T`` and ``J W r`` for a Jacobian (parameters, pixels), in float64.

    In pieces so small that OpenBLAS does not wake its threads for them: waking and waiting costs more than they help.
    """
    weighted = jacobian * weight
    right = np.concatenate([jacobian, residual[None]])
    total = np.zeros((len(jacobian), len(right)))
    for start in range(0, len(residual), PIECE):
        part = slice(start, start + PIECE)
        total += weighted[:, part] @ right[:, part].T
    return total[:, :-1], total[:, -1]


def _without_gain_and_offset(
    observed: np.ndarray, predicted: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, tuple[float, float]]:
    """Residual after a robust gain and offset, biweights (0 outside), robust standard deviation, gain and offset."""
    weight, noise = _biweight(observed - predicted, inside)
    residual, gain, offset = observed - predicted, 1.0, 0.0
    for _ in range(2):
        # Equal spread on both sides: a regression would take every misalignment for a loss of contrast.
        total = weight.sum() + 1e-12
        means = (weight @ observed) / total, (weight @ predicted) / total
        spreads = [weight @ np.square(each - mean) for each, mean in zip((observed, predicted), means, strict=True)]
        gain = float(np.sqrt((spreads[0] + 1e-9) / (spreads[1] + 1e-9)))
        offset = float(means[0] - gain * means[1])
        residual = observed - gain * predicted - np.float32(offset)
        weight, noise = _biweight(residual, inside)
    return residual, weight, noise, (gain, offset)


def _biweight(residual: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    # A low quantile instead of the median: up to 70 % of the pixels may move by themselves. A third of them suffice.
    sample = np.abs(residual[::3][inside[::3]])
    place = int(QUANTILE * len(sample))
    noise = float(np.partition(sample, place)[place]) / QUANTILE_OF_NORMAL + 1e-4
    ratio = np.minimum(np.abs(residual) / (REJECT * noise), 1.0)
    return np.square(1 - np.square(ratio)) * inside, noise


def _cost(now: _Evaluation, noise: float) -> float:
    """Mean of Tukey's rho, in [0, 1], over the pixels inside (the others have weight 0 and do not count)."""
    ratio = np.minimum(np.abs(now.residual) / (REJECT * noise), 1.0)
    kept = 1 - np.square(ratio)
    return 1 - float((kept * kept * kept)[now.inside].mean())


def _bend_stiffness(path: BlurPath) -> float:
    return BEND_PRIOR / max(path.velocity[0] ** 2 + path.velocity[1] ** 2, 1.0)


def _bend_cost(path: BlurPath) -> float:
    return _bend_stiffness(path) * (path.bend[0] ** 2 + path.bend[1] ** 2)
