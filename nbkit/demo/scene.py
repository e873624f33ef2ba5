"""Drawing the figure of the demo videos: tapered limbs, masks, the props in its hands.

Everything is drawn at twice the size with sub-pixel coordinates and averaged down.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from nbkit.demo.actions import BALL_RADIUS, BOX_HALF
from nbkit.demo.body import J

SS = 2  # supersampling
BITS = 4  # OpenCV draws at 1/16 pixel
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 7)
_ROUND = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_ROUND), np.sin(_ROUND)], -1)


class Segment(NamedTuple):
    """A tapered piece of a limb; radii in body heights."""

    start: str
    end: str
    start_radius: float
    end_radius: float
    colour: str


class Limb(NamedTuple):
    """Its segments in the order of drawing; the mean nearness of their joints is its own."""

    segments: list[Segment]
    striped: int  # the segment that a stripe adorns
    ahead: float  # added to its nearness


class Part(NamedTuple):
    """Polygons of one colour in every frame, T times (M, 2) int32."""

    polygons: np.ndarray | list[np.ndarray]
    rgb: np.ndarray
    adorns: bool = False  # a stripe: it lies inside what it adorns


ARM = Limb(
    [
        Segment("shoulder", "elbow", 0.040, 0.034, "shirt"),
        Segment("elbow", "wrist", 0.032, 0.025, "sleeve"),
        Segment("wrist", "hand", 0.030, 0.030, "skin"),
    ],
    striped=0,
    ahead=0.02,
)
LEG = Limb(
    [
        Segment("ankle", "toe", 0.030, 0.024, "shoes"),
        Segment("hip", "knee", 0.058, 0.043, "trousers"),
        Segment("knee", "ankle", 0.041, 0.030, "leg"),
    ],
    striped=1,
    ahead=0.0,
)
TORSO = {  # radii of the discs whose hull is the torso
    "l_shoulder": 0.042,
    "r_shoulder": 0.042,
    "l_hip": 0.052,
    "r_hip": 0.052,
    "pelvis": 0.062,
    "neck": 0.05,
}


class Figure:
    """The actor of one video: polygons of all frames, ready to be drawn back to front.

    xy (T, 20, 2) joints in pixels, near (T, 20), scale: pixels of one body height.
    """

    def __init__(self, xy, near, scale, style, colours):
        self.xy, self.colours = xy, colours
        self.thick = style["thick"] * scale
        self.stripes = bool(style["stripes"])
        layers, depths = [], []
        for side in "lr":
            for limb in (ARM, LEG):
                ends = [name for segment in limb.segments for name in segment[:2]]
                joints = [J[f"{side}_{name}"] for name in dict.fromkeys(ends)]
                depth = near[:, joints].mean(1) + limb.ahead  # (T,)
                nearer = (depth - near[:, J["pelvis"]]).mean()
                shade = float(np.clip(1 + 1.1 * nearer, 0.74, 1.06))
                layers.append(self._limb(side, limb, shade))
                depths.append(depth)
        middle = near[:, [J["neck"], J["pelvis"]]].mean(1)
        layers += [self._torso(), self._head(0.075 * style["head"] * scale)]
        depths += [middle, middle + 0.01]
        self.layers: list[list[Part]] = layers
        self.order = np.argsort(np.stack(depths, 1), axis=1, kind="stable")  # (T, 6)

    def draw(self, canvas: np.ndarray, t: int) -> None:
        """Draw frame t in colour."""
        for k in self.order[t]:
            for part in self.layers[k]:
                fill(canvas, part.polygons[t], part.rgb)

    def mask(self, t: int, side: int) -> np.ndarray:
        """Pixels that the actor covers by half or more, hidden ones too: (side, side) bool."""
        canvas = np.zeros((side * SS, side * SS), np.uint8)
        for layer in self.layers:
            for part in layer:
                if not part.adorns:
                    fill(canvas, part.polygons[t], 255, cv2.LINE_8)
        return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA) > 127

    def _limb(self, side: str, limb: Limb, shade: float) -> list[Part]:
        parts = []
        for number, segment in enumerate(limb.segments):
            start = self.xy[:, J[f"{side}_{segment.start}"]]
            end = self.xy[:, J[f"{side}_{segment.end}"]]
            radii = segment.start_radius * self.thick, segment.end_radius * self.thick
            rgb = np.minimum(self.colours[segment.colour] * shade, 255)
            parts.append(Part(fixed(capsules(start, end, *radii)), rgb))
            if self.stripes and number == limb.striped:
                radius = min(segment.start_radius, segment.end_radius) * self.thick
                low, high = start + 0.42 * (end - start), start + 0.72 * (end - start)
                parts.append(Part(_strip(low, high, radius), self.colours["stripe"], adorns=True))
        return parts

    def _torso(self) -> list[Part]:
        discs = [disc(self.xy[:, J[name]], r * self.thick) for name, r in TORSO.items()]
        corners = np.concatenate(discs, 1)  # (T, 96, 2)
        hull = [cv2.convexHull(frame[:, None])[:, 0] for frame in corners]
        parts = [Part(hull, self.colours["shirt"])]
        if self.stripes:
            radius = 0.034 * self.thick
            for at in (0.2, 0.55, 0.9):
                stripe = capsules(self._flank("l", at), self._flank("r", at), radius, radius)
                parts.append(Part(fixed(stripe), self.colours["stripe"], adorns=True))
        return parts

    def _flank(self, side: str, at: float) -> np.ndarray:
        """The point between shoulder (at = 0) and hip (at = 1): (T, 2)."""
        shoulder, hip = self.xy[:, J[f"{side}_shoulder"]], self.xy[:, J[f"{side}_hip"]]
        return shoulder + at * (hip - shoulder)

    def _head(self, radius: float) -> list[Part]:
        head, width = self.xy[:, J["head"]], 0.03 * self.thick
        neck = capsules(self.xy[:, J["neck"]], head, width, width)
        return [
            Part(fixed(neck), self.colours["skin"] * 0.85),
            Part(disc(self.xy[:, J["hair"]], 1.06 * radius), self.colours["hair"]),
            Part(disc(head, 0.93 * radius), self.colours["skin"]),
        ]


def project(points, yaw, elevation, mirror):
    """Body coordinates (..., 3) -> x to the right and y up (..., 2), and nearness (...).

    Orthographic, in body heights; yaw and elevation in degrees.
    """
    cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    right = points[..., 0] * sin + points[..., 1] * cos
    near = points[..., 0] * cos - points[..., 1] * sin
    if mirror:
        right = -right
    tip = np.radians(elevation)
    up = points[..., 2] * np.cos(tip) - near * np.sin(tip)
    near = near * np.cos(tip) + points[..., 2] * np.sin(tip)
    return np.stack([right, up], -1), near


# --- polygons ------------------------------------------------------------------------------------
def fixed(points: np.ndarray) -> np.ndarray:
    """Pixels of the final picture (the first spans 0 to 1) -> int32 coordinates for OpenCV."""
    return np.round((points * SS - 0.5) * (1 << BITS)).astype(np.int32)


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    """Circles of one radius about centre (T, 2): (T, 16, 2) int32."""
    return fixed(centre[:, None] + radius * _CIRCLE)


def capsules(a, b, radius_a, radius_b):
    """Outlines (..., 14, 2) of tapered limbs with ends a and b (..., 2)."""
    along = b - a
    angle = np.arctan2(along[..., 1], along[..., 0])[..., None]
    ends = []
    for centre, radius, turn in ((b, radius_b, 0.0), (a, radius_a, np.pi)):
        theta = angle + turn + _CAP
        cap = np.stack([np.cos(theta), np.sin(theta)], -1)
        ends.append(centre[..., None, :] + radius * cap)
    return np.concatenate(ends, -2)


def _strip(a, b, radius):
    """Rectangles (T, 4, 2) int32 from a to b (T, 2), `radius` to either side."""
    along = b - a
    side = np.stack([-along[..., 1], along[..., 0]], -1)
    length = np.linalg.norm(side, axis=-1, keepdims=True)
    side = radius * side / np.maximum(length, 1e-6)
    return fixed(np.stack([a + side, b + side, b - side, a - side], -2))


def fill(canvas, polygon, rgb, edge=cv2.LINE_AA):
    """Draw one convex polygon (M, 2) int32."""
    cv2.fillConvexPoly(canvas, polygon, rgb, edge, BITS)


def draw_prop(canvas, kind, centre, scale, rgb):
    """Draw a ball or a box at centre (2,) pixels."""
    if kind == "ball":
        light = centre - 0.018 * scale
        fill(canvas, disc(centre[None], BALL_RADIUS * scale)[0], rgb)
        fill(canvas, disc(light[None], 0.4 * BALL_RADIUS * scale)[0], rgb + (255 - rgb) * 0.6)
        return
    half = BOX_HALF * scale
    corners = np.array([[-1.15, -1], [1.15, -1], [1.15, 1], [-1.15, 1]]) * half
    fill(canvas, fixed(centre + corners), rgb)
    fill(canvas, fixed(centre + corners * (1, 0.16) - (0, 0.25 * half)), rgb * 0.62)
    fill(canvas, fixed(centre + corners * (0.16, 1)), rgb * 0.62)


def draw_shadow(canvas, ground, scale):
    """Draw a soft dark patch on the floor under the actor; ground (2,) pixels."""
    x, y = (int(v) for v in np.round(ground * SS))
    wide, tall = int(0.2 * scale * SS), int(0.035 * scale * SS)
    strip = canvas[max(y - tall - 1, 0) : y + tall + 2]  # only these rows change
    if len(strip):
        patch = strip.copy()
        centre = x, min(y, tall + 1)
        cv2.ellipse(patch, centre, (wide, tall), 0, 0, 360, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.addWeighted(patch, 0.4, strip, 0.6, 0, strip)
