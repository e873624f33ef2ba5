"""The surroundings of the demo figure: wall, floor, clutter, a passing mover, an occluder."""

from __future__ import annotations

import cv2
import numpy as np

from nbkit.demo.scene import BITS, SS, disc, draw_prop, fill, fixed
from nbkit.demo.style import colour

MARGIN = 0.16  # of the picture's side, around the backdrop, for the moving camera
# windows, courses of panels, a fence: width and height of one, gaps between them
FACADES = (
    (0.11, 0.16, 0.12, 0.10),
    (0.34, 0.018, 0.015, 0.09),
    (0.022, 0.3, 0.05, 2.0),
)


# --- the backdrop, painted once ------------------------------------------------------------------
def backdrop(rng: np.random.Generator, style: dict[str, float], size: int) -> np.ndarray:
    """Wall, floor and clutter (side, side, 3) uint8, larger than the picture by MARGIN all around.

    It is always darker than the figure.
    """
    side = int(round(size * (1 + 2 * MARGIN))) * SS
    luma, saturation = style["backdrop"], style["saturation"]
    wall = colour(rng, saturation * 0.8, luma)
    floor_luma = luma * rng.uniform(0.55, 0.85)
    floor = colour(rng, saturation * 0.7, floor_luma)
    light = _light(rng, style, side)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = np.round(255 * wall)
    things = int(style["clutter"])
    if things > 3:
        _facade(rng, canvas, style)
    slope, top = 1.5 * np.tan(np.radians(style["tilt"])), style["floor"] - 0.06
    corners = np.array([[-1.0, top - slope], [2.0, top + slope], [2.0, 3.0], [-1.0, 3.0]])
    _polygon(canvas, corners + MARGIN, floor)
    for _ in range(things):
        _thing(rng, canvas, style, size)
    lit = cv2.multiply(canvas, cv2.merge([light] * 3), dtype=cv2.CV_8U)
    return cv2.min(lit, np.full_like(lit, 115))


def _light(rng, style, side):
    """A bright spot on an uneven wall: factors (side, side) float32."""
    y, x = np.mgrid[0:24, 0:24] / 23 * (1 + 2 * MARGIN) - MARGIN
    from_spot = (x - rng.uniform(0.3, 0.7)) ** 2 + (y - rng.uniform(0.1, 0.5)) ** 2
    light = 1.12 - 0.5 * from_spot + style["relief"] * 0.35 * rng.standard_normal((24, 24))
    return cv2.resize(light.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def _facade(rng, canvas, style):
    """Something on the wall: rows of windows, courses of panels, or a fence."""
    kind = rng.integers(3)
    luma = style["backdrop"] * rng.choice([0.6, 0.75, 1.25])
    tone = colour(rng, style["saturation"] * 0.8, luma)
    foot = style["floor"] - 0.06
    *shape, gap_x, gap_y = FACADES[kind]
    wide, tall = shape * rng.uniform(0.8, 1.3, 2)
    if kind == 2:
        top = foot - tall
    else:
        top = -MARGIN + rng.uniform(0, 0.1)
    for row, y in enumerate(np.arange(top, foot - 0.02, tall + gap_y)):
        left = -MARGIN - 0.1
        if kind == 1:  # every other course of panels is shifted by half a panel
            left -= (row % 2) * wide / 2
        for x in np.arange(left, 1 + MARGIN, wide + gap_x):
            box = x, y, x + wide, min(y + tall, foot + 0.02)
            _rectangle(canvas, box, tone, style["tilt"])


def _thing(rng, canvas, style, size):
    """One thing that stands about: a post, a bench, or a bush."""
    kind, at = rng.integers(3), rng.uniform(-0.1, 1.0)
    luma = style["backdrop"] * rng.uniform(0.5, 1.35)
    tone = colour(rng, style["saturation"], luma)
    foot = style["floor"] - rng.uniform(0.0, 0.08)
    if kind == 0:  # a post
        box = at, foot - rng.uniform(0.35, 0.8), at + rng.uniform(0.015, 0.04), foot
        _rectangle(canvas, box, tone, style["tilt"])
    elif kind == 1:  # a bin, a bench, a parked thing
        box = at, foot - rng.uniform(0.08, 0.25), at + rng.uniform(0.08, 0.22), foot
        _rectangle(canvas, box, tone, style["tilt"])
    else:  # a bush or a sign
        y = foot - rng.uniform(0.02, 0.5)
        centre = [int((v + MARGIN) * size * SS) for v in (at, y)]
        axes = [int(rng.uniform(*span) * size * SS) for span in ((0.05, 0.12), (0.04, 0.09))]
        cv2.ellipse(canvas, centre, axes, 0, 0, 360, (255 * tone).tolist(), -1, cv2.LINE_AA)


def _rectangle(canvas, box, rgb, angle):
    """Fill x0, y0, x1, y1 in fractions of a picture, turned by `angle` about its foot."""
    x0, y0, x1, y1 = box
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    corners = _corners(box) - (x0, y1)
    corners = corners @ np.array([[cos, sin], [-sin, cos]]) + (x0 + MARGIN, y1 + MARGIN)
    _polygon(canvas, corners, rgb)


def _polygon(canvas, corners, rgb):
    """Fill a polygon whose corners are in fractions of a picture, from the backdrop's corner."""
    pixels = canvas.shape[0] / (1 + 2 * MARGIN)
    fill(canvas, np.round(corners * pixels * (1 << BITS)).astype(np.int32), 255 * rgb)


def _corners(box):
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


# --- what moves, and what hides ------------------------------------------------------------------
class Extras:
    """A passing mover behind the actor and an occluder in front, both darker than the actor.

    A loose prop on the floor, like the used ones, is painted on the backdrop at once.
    actor (2,): the actor's mean position in pixels, camera at rest.
    """

    def __init__(self, rng, style, size, actor, prop_rgb, backdrop):
        self.style, self.size = style, size
        self.floor = style["floor"] * size
        self.tone = 255 * colour(rng, style["saturation"], style["backdrop"] * 1.45)
        self.dark = 255 * colour(rng, style["saturation"], style["backdrop"] * 0.8)
        self._loose_prop(rng, actor, prop_rgb, backdrop)
        self._mover(rng)
        self.occluder = self._occluder(rng, actor)

    def _loose_prop(self, rng, actor, prop_rgb, backdrop):
        kind = str(rng.choice(["ball", "box"]))
        aside = rng.choice([-1.0, 1.0]) * rng.uniform(0.22, 0.42) * self.size
        rgb = prop_rgb
        if rng.random() >= 0.5:
            rgb = 255 * colour(rng, 0.8, self.style["figure"])
        if self.style["loose"]:
            at = np.array([actor[0] + aside, self.floor - 0.03 * self.size])
            at += round(self.size * MARGIN)
            draw_prop(backdrop, kind, at, self.style["height"] * self.size, rgb)

    def _mover(self, rng):
        self.flies = rng.random() < 0.4
        direction = rng.choice([-1.0, 1.0])
        height = self.floor - 0.055 * self.size
        if self.flies:
            height = rng.uniform(0.12, 0.4) * self.size
        self.start = np.array([self.size * (0.5 - direction * rng.uniform(0.3, 0.75)), height])
        self.velocity = direction * rng.uniform(0.012, 0.03) * self.size
        self.mover_size = rng.uniform(0.8, 1.3) * self.size

    def _occluder(self, rng, actor):
        size, floor = self.size, self.floor
        x = actor[0] + rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.14) * size
        if rng.random() < 0.55:  # a post
            wide = rng.uniform(0.03, 0.055) * size
            top, bottom = -0.5 * size, floor + rng.uniform(0.02, 0.1) * size
        else:  # a hedge or a bench before the legs
            wide, tall = rng.uniform(0.25, 0.5) * size, rng.uniform(0.06, 0.12) * size
            top, bottom = floor - tall + 0.03 * size, floor + 0.06 * size
        return _corners((x - wide / 2, top, x + wide / 2, bottom))

    def behind(self, canvas: np.ndarray, t: int, camera: np.ndarray) -> None:
        """Draw the mover at frame t; camera (2,) pixels."""
        if not self.style["mover"]:
            return
        at, k = self.start + (self.velocity * t, 0.0) + camera, self.mover_size
        if self.flies:
            flap = 0.02 * k * np.sin(0.9 * t)
            for side in (-1, 1):
                wing = np.array([[0, -0.012 * k], [side * 0.055 * k, flap], [0, 0.016 * k]])
                fill(canvas, fixed(at + wing), self.tone)
            return
        body = np.array([[-0.16, -0.075], [0.16, -0.075], [0.17, 0.0], [-0.17, 0.0]]) * k
        cabin = np.array([[-0.08, -0.14], [0.06, -0.14], [0.11, -0.07], [-0.12, -0.07]]) * k
        for part in (body, cabin):
            fill(canvas, fixed(at + part), self.tone)
        for x in (-0.095, 0.095):
            wheel = at + (x * k, 0.0)
            fill(canvas, disc(wheel[None], 0.032 * k)[0], self.dark * 0.5)

    def front(self, canvas: np.ndarray, camera: np.ndarray) -> None:
        """Draw the occluder."""
        if self.style["occluder"]:
            fill(canvas, fixed(self.occluder + camera), self.dark)
