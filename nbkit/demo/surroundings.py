"""The surroundings of the demo figure: wall, floor, clutter, a passing distractor, what hides the
actor.
"""

from __future__ import annotations

import cv2
import numpy as np

from nbkit.demo.scene import BITS, SS, Figure, draw_prop, fill, fixed
from nbkit.demo.style import colour

MARGIN = 0.16  # of the picture's side, around the backdrop, for the moving camera


def _rect(canvas, x0, y0, x1, y1, rgb, angle=0.0):
    """A rectangle in fractions of a picture, on a backdrop canvas; its foot stays while it is
    turned by `angle`.
    """
    m, n = MARGIN, canvas.shape[0] / (1 + 2 * MARGIN)
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) - (x0, y1)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    corners = corners @ np.array([[c, s], [-s, c]]) + (x0 + m, y1 + m)
    fill(canvas, np.round(corners * n * (1 << BITS)).astype(np.int32), 255 * np.asarray(rgb))


def backdrop(rng, style, size):
    """Wall, floor and clutter, larger than the picture by MARGIN on every side: uint8 (side, side,
    3).
    """
    side = int(round(size * (1 + 2 * MARGIN))) * SS
    v, s, tilt = style["backdrop"], style["saturation"], style["tilt"]
    wall, floor = colour(rng, s * 0.8, v), colour(rng, s * 0.7, v * rng.uniform(0.55, 0.85))
    y, x = np.mgrid[0:24, 0:24] / 23 * (1 + 2 * MARGIN) - MARGIN
    light = 1.12 - 0.5 * ((x - rng.uniform(0.3, 0.7)) ** 2 + (y - rng.uniform(0.1, 0.5)) ** 2)
    light = light + style["relief"] * 0.35 * rng.standard_normal((24, 24))
    light = cv2.resize(light.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = np.round(255 * wall)
    n = int(style["clutter"])
    if n > 3:
        _facade(rng, canvas, style, v, s)
    _floor(canvas, style, floor)
    for _ in range(n):
        kind, at = rng.integers(3), rng.uniform(-0.1, 1.0)
        tone, foot = (
            colour(rng, s, v * rng.uniform(0.5, 1.35)),
            style["floor"] - rng.uniform(0.0, 0.08),
        )
        if kind == 0:  # a post
            _rect(
                canvas,
                at,
                foot - rng.uniform(0.35, 0.8),
                at + rng.uniform(0.015, 0.04),
                foot,
                tone,
                tilt,
            )
        elif kind == 1:  # a bin, a bench, a parked thing
            _rect(
                canvas,
                at,
                foot - rng.uniform(0.08, 0.25),
                at + rng.uniform(0.08, 0.22),
                foot,
                tone,
                tilt,
            )
        else:  # a bush or a sign
            centre = (np.array([at, foot - rng.uniform(0.02, 0.5)]) + MARGIN) * size * SS
            cv2.ellipse(
                canvas,
                tuple(int(k) for k in centre),
                (
                    int(rng.uniform(0.05, 0.12) * size * SS),
                    int(rng.uniform(0.04, 0.09) * size * SS),
                ),
                0,
                0,
                360,
                (255 * tone).tolist(),
                -1,
                cv2.LINE_AA,
            )
    lit = cv2.multiply(canvas, cv2.merge([light] * 3), dtype=cv2.CV_8U)
    return cv2.min(lit, np.full_like(lit, 115))  # always darker than the figure


def _floor(canvas, style, floor):
    slope = 1.5 * np.tan(np.radians(style["tilt"]))
    y, m, n = style["floor"] - 0.06, MARGIN, canvas.shape[0] / (1 + 2 * MARGIN)
    corners = np.array([[-1.0, y - slope], [2.0, y + slope], [2.0, 3.0], [-1.0, 3.0]]) + m
    fill(canvas, np.round(corners * n * (1 << BITS)).astype(np.int32), 255 * floor)


def _facade(rng, canvas, style, v, s):
    """Something on the wall: rows of windows, courses of panels, or a fence."""
    kind, tone = rng.integers(3), colour(rng, s * 0.8, v * rng.choice([0.6, 0.75, 1.25]))
    low, tilt = style["floor"] - 0.06, style["tilt"]
    wide, tall = ((0.11, 0.16), (0.34, 0.018), (0.022, 0.3))[kind] * rng.uniform(0.8, 1.3, 2)
    gap_x, gap_y = ((0.12, 0.10), (0.015, 0.09), (0.05, 2.0))[kind]
    top = low - tall if kind == 2 else -MARGIN + rng.uniform(0, 0.1)
    for row, y in enumerate(np.arange(top, low - 0.02, tall + gap_y)):
        for x in np.arange(
            -MARGIN - 0.1 - (row % 2) * (kind == 1) * wide / 2, 1 + MARGIN, wide + gap_x
        ):
            _rect(canvas, x, y, x + wide, min(y + tall, low + 0.02), tone, tilt)


class Extras:
    """A passing mover behind the actor and an occluder in front, both darker than the actor; and a
    loose prop on the floor, like the used ones, which is painted on the backdrop at once.

    actor (2,): the actor's mean position in pixels, camera at rest.
    """

    def __init__(self, rng, style, size, actor, colours, backdrop):
        self.style = style
        v, floor = style["backdrop"], style["floor"] * size
        self.tone = 255 * colour(rng, style["saturation"], v * 1.45)
        self.dark = 255 * colour(rng, style["saturation"], v * 0.8)
        kind, side = (
            str(rng.choice(["ball", "box"])),
            rng.choice([-1.0, 1.0]) * rng.uniform(0.22, 0.42) * size,
        )
        rgb = colours["prop"] if rng.random() < 0.5 else 255 * colour(rng, 0.8, style["figure"])
        if style["loose"]:
            at = np.array([actor[0] + side, floor - 0.03 * size]) + round(size * MARGIN)
            draw_prop(backdrop, kind, at, style["height"] * size, rgb)
        self.flies, direction = rng.random() < 0.4, rng.choice([-1.0, 1.0])
        height = rng.uniform(0.12, 0.4) * size if self.flies else floor - 0.055 * size
        self.start = np.array([size * (0.5 - direction * rng.uniform(0.3, 0.75)), height])
        self.velocity = direction * rng.uniform(0.012, 0.03) * size
        self.mover_size = rng.uniform(0.8, 1.3) * size
        x = actor[0] + rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.14) * size
        if rng.random() < 0.55:  # a post
            w = rng.uniform(0.03, 0.055) * size
            box = x - w / 2, -0.5 * size, x + w / 2, floor + rng.uniform(0.02, 0.1) * size
        else:  # a hedge or a bench before the legs
            w, h = rng.uniform(0.25, 0.5) * size, rng.uniform(0.06, 0.12) * size
            box = x - w / 2, floor - h + 0.03 * size, x + w / 2, floor + 0.06 * size
        self.occluder = np.array(
            [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]]
        )

    def behind(self, canvas, t, camera):
        """The mover; camera (2,) pixels."""
        if self.style["mover"]:
            at, k = self.start + (self.velocity * t, 0.0) + camera, self.mover_size
            if self.flies:
                flap = 0.02 * k * np.sin(0.9 * t)
                for wing in (-1, 1):
                    tip = np.array([wing * 0.055 * k, flap])
                    fill(
                        canvas,
                        fixed(at + np.array([[0, -0.012 * k], tip, [0, 0.016 * k]])),
                        self.tone,
                    )
            else:
                body = np.array([[-0.16, -0.075], [0.16, -0.075], [0.17, 0.0], [-0.17, 0.0]]) * k
                cabin = np.array([[-0.08, -0.14], [0.06, -0.14], [0.11, -0.07], [-0.12, -0.07]]) * k
                for part in (body, cabin):
                    fill(canvas, fixed(at + part), self.tone)
                for wheel in (-0.095, 0.095):
                    fill(
                        canvas,
                        Figure.disc((at + (wheel * k, 0.0))[None], 0.032 * k)[0],
                        self.dark * 0.5,
                    )

    def front(self, canvas, camera):
        """The occluder."""
        if self.style["occluder"]:
            fill(canvas, fixed(self.occluder + camera), self.dark)
