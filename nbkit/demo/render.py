"""One video of the demo domains: pixels, exact boxes and masks of the actor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nbkit.demo import scene
from nbkit.demo.actions import ACTIONS, PROPS, Manner, perform, performed_twice
from nbkit.demo.body import Build, J
from nbkit.demo.style import DOMAINS, in_haze, sample_style, tone_curve, wardrobe, yaw_of
from nbkit.demo.surroundings import MARGIN, Extras, backdrop
from nbkit.errors import NbkitError


@dataclass
class DemoVideo:
    """One rendered video of N frames.

    Attributes:
        frames: (N, H, W, 3) uint8 RGB.
        boxes: (N, 4) float32 x0, y0, x1, y1 in pixels: the whole actor without the prop, even where
            something hides it; zeros where nobody is there.
        masks: (N, H, W) bool, that actor's pixels.
        action: (N,) bool, False on the background frames of an untrimmed video.
        style: the numbers it was drawn with.
    """

    frames: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    action: np.ndarray
    style: dict[str, float]


def render_video(
    action: str,
    domain: str,
    seed: int,
    shift: float = 1.0,
    size: int = 96,
    frames: int = 32,
    untrimmed: bool = False,
    haze: float = 0.0,
) -> DemoVideo:
    """Render one performance at 25 fps; the same arguments give the same pixels.

    Args:
        action, domain: names in ACTIONS and DOMAINS.
        seed: non-negative.
        shift: in [0, 1], how far `street` is from `studio`.
        size: side in pixels, at least 32.
        frames: at least 8.
        untrimmed: 3 * frames long, two performances with standing and empty stretches around them.
        haze: in [0, 1), the most haze over `street`, see `in_haze`.

    Raises:
        NbkitError: a value outside these.
    """
    for name, value, known in (("action", action, ACTIONS), ("domain", domain, DOMAINS)):
        if value not in known:
            raise NbkitError(f"{name}={value!r} is not one of {', '.join(known)}")
    if size < 32 or frames < 8 or seed < 0:
        raise NbkitError(
            f"size={size}, frames={frames}, seed={seed}: need size >= 32, frames >= 8 and seed >= 0"
        )
    if not 0 <= haze < 1:
        raise NbkitError(f"haze={haze} must be at least 0 and below 1")
    numbers = [seed, DOMAINS.index(domain), ACTIONS.index(action)]
    style = sample_style(np.random.default_rng(numbers), domain, shift)
    rng = np.random.default_rng(style["seed"])
    build = Build(*(style[name] for name in ("legs", "arms", "shoulders", "head")))
    manner = Manner(*(style[name] for name in ("tempo", "size", "phase", "variant", "delay")))
    if untrimmed:
        motion = performed_twice(action, 3 * frames, build, manner, rng)
    else:
        motion = perform(action, frames, build, manner)
    stage = _Stage(action, motion, style, rng, size)
    if haze and domain == "street":
        # Its own generator: the scene behind the haze is the one without it.
        stage.tone = in_haze(stage.tone, np.random.default_rng([style["seed"], 1]), haze)
    pictures = np.stack([stage.picture(t) for t in range(len(motion.present))])
    masks = np.zeros(pictures.shape[:3], bool)
    for t in np.flatnonzero(motion.present):
        masks[t] = stage.figure.mask(t, size)
    return DemoVideo(pictures, boxes_of(masks), masks, motion.action, style)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Tight boxes of masks (N, H, W): (N, 4) float32 x0, y0, x1, y1, zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for axis, column in ((1, 0), (2, 1)):  # columns that hold a pixel, then rows
        held = masks.any(axis)
        boxes[:, column] = held.argmax(1)
        boxes[:, column + 2] = held.shape[1] - held[:, ::-1].argmax(1)
    boxes[~masks.any((1, 2))] = 0
    return boxes


class _Stage:
    """Everything of one video that is computed once, and the picture at a time."""

    def __init__(self, action, motion, style, rng, size):
        self.style, self.size, self.motion = style, size, motion
        count = len(motion.present)
        self.colours = wardrobe(rng, style)
        self.backdrop = backdrop(rng, style, size)
        self.camera = self._camera(count, rng)  # (T, 2) pixels, added to everything in the world
        self.scale = style["height"] * size
        flat, near = self._project(action)
        pelvis = J["pelvis"]
        self.figure = scene.Figure(flat[:, :20], near[:, :20], self.scale, style, self.colours)
        self.shadow, self.prop = flat[:, 20], flat[:, 21]
        self.prop_kind = PROPS.get(action)
        self.prop_in_front = near[:, 21] >= near[:, pelvis] - 0.02
        actor = flat[:, pelvis].mean(0) - self.camera.mean(0)
        self.extras = Extras(rng, style, size, actor, self.colours["prop"], self.backdrop)
        self.tone = tone_curve(style)
        noise = style["noise"] * rng.standard_normal((size + 32, size + 32, 3))
        self.noise = noise.astype(np.int16)
        self.noise_at = rng.integers(0, 32, (count, 2))

    def _camera(self, count, rng):
        t = np.arange(count) / max(count - 1, 1) - 0.5
        pan = np.stack([self.style["pan"] * t, 0.25 * self.style["pan"] * t], -1)
        rate = rng.uniform(1.5, 5.0, (2, 2))
        phase = rng.uniform(0, 2 * np.pi, (2, 2))
        waves = np.sin(2 * np.pi * rate * t[:, None, None] * count / 32 + phase)
        return self.size * (pan + waves.sum(-1) * self.style["shake"])

    def _project(self, action):
        """Joints, shadow and prop in the picture: pixels (T, 22, 2) and nearness (T, 22)."""
        joints, style = self.motion.joints, self.style
        shadow = joints[:, J["pelvis"]] * (1, 1, 0)
        points = [joints, shadow[:, None], self.motion.prop[:, None]]
        cloud = np.concatenate(points, 1)  # (T, 22, 3)
        view = yaw_of(style, action), style["elevation"], bool(style["mirror"])
        flat, near = scene.project(cloud, *view)
        return self._place(flat, action) + self.camera[:, None], near

    def _place(self, flat, action):
        """Body heights -> pixels: leaning, feet on the floor, the whole performance in sight."""
        lean = np.radians(self.style["lean"])
        turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
        flat = flat @ turn * (1, -1) * self.scale
        body = flat[:, :21]
        if action == "lift":  # the box too
            body = flat
        pad = 0.07 * self.scale
        low, high = np.nanmin(body, (0, 1)) - pad, np.nanmax(body, (0, 1)) + pad
        x = self.style["place"] * self.size - (low[0] + high[0]) / 2
        if action in ("throw", "kick"):  # room for the ball to fly
            x -= np.sign(np.nanmean(np.diff(flat[:, 21, 0]))) * 0.12 * self.size
        y = self.style["floor"] * self.size
        ends = np.stack([-low, self.size - high])  # (2, 2): between these nothing is cut off
        return flat + np.clip((x, y), ends.min(0), ends.max(0))

    def picture(self, t: int) -> np.ndarray:
        """Frame t: (H, W, 3) uint8."""
        side, margin = self.size * scene.SS, int(round(self.size * MARGIN)) * scene.SS
        dx, dy = np.round(-self.camera[t] * scene.SS).astype(int) + margin
        canvas = np.ascontiguousarray(self.backdrop[dy : dy + side, dx : dx + side])
        self.extras.behind(canvas, t, self.camera[t])
        self._draw_actor(canvas, t)
        self.extras.front(canvas, self.camera[t])
        picture = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        picture = cv2.GaussianBlur(picture, (5, 5), self.style["blur"])
        y, x = self.noise_at[t]
        noise = self.noise[y : y + self.size, x : x + self.size]
        return cv2.add(cv2.LUT(picture, self.tone), noise, dtype=cv2.CV_8U)

    def _draw_actor(self, canvas, t):
        if self.motion.present[t]:
            scene.draw_shadow(canvas, self.shadow[t], self.scale)
        self._draw_prop(canvas, t, in_front=False)
        if self.motion.present[t]:
            self.figure.draw(canvas, t)
        self._draw_prop(canvas, t, in_front=True)

    def _draw_prop(self, canvas, t, in_front):
        if self.prop_in_front[t] == in_front and not np.isnan(self.prop[t, 0]):
            rgb = self.colours["prop"]
            scene.draw_prop(canvas, self.prop_kind, self.prop[t], self.scale, rgb)
