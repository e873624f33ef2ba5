"""One video of the demo domains, rendered: pixels, exact boxes and masks of the actor; and contact
sheets.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nbkit.demo import actions as acts
from nbkit.demo import scene
from nbkit.demo import surroundings as around
from nbkit.demo.actions import ACTIONS
from nbkit.demo.body import J
from nbkit.demo.style import (
    DOMAINS,
    build_of,
    in_haze,
    manner_of,
    sample_style,
    tone_curve,
    wardrobe,
    yaw_of,
)
from nbkit.errors import NbkitError


@dataclass
class DemoVideo:
    """One rendered video of N frames.

    frames (N, H, W, 3) uint8 RGB; boxes (N, 4) float32 x0, y0, x1, y1 in pixels, the extent of the
    whole actor without the prop even where something hides it (zeros where nobody is there); masks
    (N, H, W) bool, that actor's pixels; action (N,) bool, False on the background frames of an
    untrimmed video; style: the numbers it was drawn with.
    """

    frames: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    action: np.ndarray
    style: dict


def render_video(
    action, domain, seed, shift=1.0, size=96, frames=32, untrimmed=False, haze=0.0
) -> DemoVideo:
    """Render one performance at 25 fps; the same arguments give the same pixels.

    action, domain  names in ACTIONS and DOMAINS seed            non-negative integer shift
    in [0, 1]: how far `street` is from `studio` size, frames    side in pixels (at least 32),
    frames (at least 8) untrimmed       3 * frames long: two performances with standing and empty
    stretches around them haze            in [0, 1): the most haze over `street`, see `in_haze`; 0
    leaves the pixels as they are without it Raises NbkitError for a value outside these.
    """
    if action not in ACTIONS:
        raise NbkitError(f"action={action!r} is not one of {', '.join(ACTIONS)}")
    if size < 32 or frames < 8 or seed < 0:
        raise NbkitError(
            f"size={size}, frames={frames}, seed={seed}: need size >= 32, frames >= 8 and seed >= 0"
        )
    if domain not in DOMAINS:
        raise NbkitError(f"domain={domain!r} is not one of {', '.join(DOMAINS)}")
    if not 0 <= haze < 1:
        raise NbkitError(f"haze={haze} must be at least 0 and below 1")
    style = sample_style(
        np.random.default_rng([seed, DOMAINS.index(domain), ACTIONS.index(action)]), domain, shift
    )
    rng = np.random.default_rng(style["seed"])
    if untrimmed:
        motion = acts.untrimmed(action, 3 * frames, build_of(style), manner_of(style), rng)
    else:
        motion = acts.perform(action, frames, build_of(style), manner_of(style))
    stage = _Stage(action, motion, style, rng, size)
    if (
        haze and domain == "street"
    ):  # its own generator: the scene behind the haze is the one without it
        stage.tone = in_haze(stage.tone, np.random.default_rng([style["seed"], 1]), haze)
    shown = [stage.frame(t) for t in range(len(motion.present))]
    masks = np.stack(
        [
            stage.figure.mask(t, size) if here else np.zeros((size, size), bool)
            for t, here in enumerate(motion.present)
        ]
    )
    return DemoVideo(np.stack(shown), boxes_of(masks), masks, motion.action, style)


def boxes_of(masks) -> np.ndarray:
    """Tight boxes of masks (N, H, W) bool: (N, 4) float32 x0, y0, x1, y1, zeros for an empty mask."""
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
        self.colours = wardrobe(rng, style)
        self.backdrop = around.backdrop(rng, style, size)
        self.camera = self._camera(
            len(motion.present), rng
        )  # (T, 2) pixels, added to everything in the world
        scale = style["height"] * size
        view = (yaw_of(style, action), style["elevation"], bool(style["mirror"]))
        path = motion.joints[:, J["pelvis"]] * (1, 1, 0)
        cloud = np.concatenate(
            [motion.joints, path[:, None], motion.prop[:, None]], 1
        )  # (T, 22, 3)
        flat, near = scene.project(cloud, *view)
        flat = self._place(flat, scale, action) + self.camera[:, None]
        self.figure = scene.Figure(flat[:, :20], near[:, :20], scale, style, self.colours)
        self.shadow, self.prop, self.scale = flat[:, 20], flat[:, 21], scale
        self.prop_near = near[:, 21] >= near[:, J["pelvis"]] - 0.02
        self.kind = acts.PROPS.get(action)
        self.extras = around.Extras(
            rng,
            style,
            size,
            flat[:, J["pelvis"]].mean(0) - self.camera.mean(0),
            self.colours,
            self.backdrop,
        )
        self.tone = tone_curve(style)
        self.noise = (style["noise"] * rng.standard_normal((size + 32, size + 32, 3))).astype(
            np.int16
        )
        self.offsets = rng.integers(0, 32, (len(motion.present), 2))

    def _camera(self, count, rng):
        """A slow pan and a shaking hand."""
        t = np.arange(count) / max(count - 1, 1) - 0.5
        pan = np.stack([self.style["pan"] * t, 0.25 * self.style["pan"] * t], -1)
        rate, phase = rng.uniform(1.5, 5.0, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
        shake = (
            np.sin(2 * np.pi * rate * t[:, None, None] * count / 32 + phase).sum(-1)
            * self.style["shake"]
        )
        return self.size * (pan + shake)

    def _place(self, flat, scale, action):
        """Body heights -> pixels: turned by the lean, feet on the floor, the whole performance
        inside the picture.
        """
        c, s = np.cos(np.radians(self.style["lean"])), np.sin(np.radians(self.style["lean"]))
        flat = flat @ np.array([[c, -s], [s, c]]) * (1, -1) * scale
        body = flat if action == "lift" else flat[:, :21]
        pad = 0.07 * scale
        low, high = np.nanmin(body, (0, 1)) - pad, np.nanmax(body, (0, 1)) + pad
        x = self.style["place"] * self.size - (low[0] + high[0]) / 2
        if action in ("throw", "kick"):  # room for the ball to fly
            x -= np.sign(np.nanmean(np.diff(flat[:, 21, 0]))) * 0.12 * self.size
        y = self.style["floor"] * self.size
        x = np.clip(x, min(-low[0], self.size - high[0]), max(-low[0], self.size - high[0]))
        y = np.clip(y, min(-low[1], self.size - high[1]), max(-low[1], self.size - high[1]))
        return flat + (x, y)

    def frame(self, t):
        """(H, W, 3) uint8."""
        side, m = self.size * scene.SS, int(round(self.size * around.MARGIN)) * scene.SS
        dx, dy = np.round(-self.camera[t] * scene.SS).astype(int) + m
        canvas = np.ascontiguousarray(self.backdrop[dy : dy + side, dx : dx + side])
        self.extras.behind(canvas, t, self.camera[t])
        if self.motion.present[t]:
            scene.draw_shadow(canvas, self.shadow[t], self.scale)
        prop = not np.isnan(self.prop[t, 0])
        if prop and not self.prop_near[t]:
            scene.draw_prop(canvas, self.kind, self.prop[t], self.scale, self.colours["prop"])
        if self.motion.present[t]:
            self.figure.draw(canvas, t)
        if prop and self.prop_near[t]:
            scene.draw_prop(canvas, self.kind, self.prop[t], self.scale, self.colours["prop"])
        self.extras.front(canvas, self.camera[t])
        picture = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        picture = cv2.GaussianBlur(picture, (5, 5), self.style["blur"])
        a, b = self.offsets[t]
        noise = self.noise[a : a + self.size, b : b + self.size]
        return cv2.add(cv2.LUT(picture, self.tone), noise, dtype=cv2.CV_8U)


def contact_sheet(
    domains=DOMAINS, *, seed=0, samples=1, shift=1.0, size=96, columns=8, boxes=True
) -> np.ndarray:
    """Rows are actions (times samples), columns eight moments of each video, one block a domain:
    (H, W, 3) uint8.
    """
    blocks = []
    for domain in domains:
        rows = []
        for action in ACTIONS:
            for k in range(samples):
                video = render_video(action, domain, 1000 * seed + k, shift, size)
                moments = np.linspace(0, len(video.frames) - 1, columns).round().astype(int)
                pictures = [video.frames[t].copy() for t in moments]
                if boxes:
                    x0, y0, x1, y1 = (int(v) for v in video.boxes[moments[0]])
                    cv2.rectangle(pictures[0], (x0, y0), (x1 - 1, y1 - 1), (90, 255, 90), 1)
                font = cv2.FONT_HERSHEY_SIMPLEX
                cv2.putText(
                    pictures[0], action, (2, 9), font, 0.32, (255, 255, 120), 1, cv2.LINE_AA
                )
                rows.append(np.concatenate(pictures, 1))
        blocks.append(np.concatenate(rows, 0))
    gap = np.full((len(blocks[0]), 6, 3), 255, np.uint8)
    return np.concatenate([piece for block in blocks for piece in (block, gap)][:-1], 1)
