"""Drawing the figure of the demo videos: tapered limbs, masks, the props in its hands.

Everything is drawn at twice the size with sub-pixel coordinates and averaged down.
"""

from __future__ import annotations

import cv2
import numpy as np

from nbkit.demo.actions import BALL_RADIUS, BOX_HALF
from nbkit.demo.body import J

SS = 2  # supersampling
BITS = 4  # OpenCV draws at 1/16 pixel
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 7)
_ROUND = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_ROUND), np.sin(_ROUND)], -1)
# part, first joint, last joint, radius at both ends (body heights), colour
_ARM = [
    ("shoulder", "elbow", 0.040, 0.034, "shirt"),
    ("elbow", "wrist", 0.032, 0.025, "sleeve"),
    ("wrist", "hand", 0.030, 0.030, "skin"),
]
_LEG = [
    ("ankle", "toe", 0.030, 0.024, "shoes"),
    ("hip", "knee", 0.058, 0.043, "trousers"),
    ("knee", "ankle", 0.041, 0.030, "leg"),
]


def project(points, yaw, elevation, mirror=False):
    """Body coordinates (..., 3) -> picture x to the right, y up, and nearness; orthographic, in
    body heights.
    """
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    right = points[..., 0] * s + points[..., 1] * c
    near = points[..., 0] * c - points[..., 1] * s
    e = np.radians(elevation)
    up = points[..., 2] * np.cos(e) - near * np.sin(e)
    return np.stack([-right if mirror else right, up], -1), near * np.cos(e) + points[
        ..., 2
    ] * np.sin(e)


def capsules(a, b, ra, rb):
    """Outlines of tapered limbs. a, b (..., 2) ends, ra, rb radii -> (..., 14, 2)."""
    along = b - a
    angle = np.arctan2(along[..., 1], along[..., 0])[..., None]
    ends = []
    for centre, radius, turn in ((b, rb, 0.0), (a, ra, np.pi)):
        theta = angle + turn + _CAP
        ends.append(centre[..., None, :] + radius * np.stack([np.cos(theta), np.sin(theta)], -1))
    return np.concatenate(ends, -2)


def fixed(points):
    """Pixels of the final picture (the first spans 0 to 1) -> int32 coordinates for OpenCV at the
    supersampled size.
    """
    return np.round((points * SS - 0.5) * (1 << BITS)).astype(np.int32)


def fill(canvas, polygon, rgb, smooth=True):
    """One convex polygon (M, 2) int32."""
    cv2.fillConvexPoly(canvas, polygon, rgb, cv2.LINE_AA if smooth else cv2.LINE_8, BITS)


class Figure:
    """The actor of one video: polygons of all frames, ready to be drawn back to front.

    xy (T, 20, 2) joints in pixels, near (T, 20), scale: pixels of one body height.
    """

    def __init__(self, xy, near, scale, style, colours):
        self.colours, self.stripe = colours, colours["stripe"]
        self.parts = {}  # name -> list of ((T, 14, 2) int32, rgb)
        thick = style["thick"] * scale
        depth = {}
        for side in "lr":
            for name, table in ((f"{side}_arm", _ARM), (f"{side}_leg", _LEG)):
                joints = [
                    J[f"{side}_{p}"] for p in dict.fromkeys(j for row in table for j in row[:2])
                ]
                depth[name] = near[:, joints].mean(1) + (0.02 if "arm" in name else 0.0)
                shade = float(
                    np.clip(1 + 1.1 * (depth[name] - near[:, J["pelvis"]]).mean(), 0.74, 1.06)
                )
                self.parts[name] = [self._limb(xy, side, row, thick, shade) for row in table]
                if style["stripes"]:
                    first = 0 if "arm" in name else 1
                    self.parts[name].insert(first + 1, self._band(xy, side, table[first], thick))
        self.parts["torso"] = self._torso(xy, thick, style)
        r = 0.075 * style["head"] * scale
        neck = capsules(xy[:, J["neck"]], xy[:, J["head"]], 0.03 * thick, 0.03 * thick)
        hair, face = (
            self.disc(xy[:, J[k]], size * r) for k, size in (("hair", 1.06), ("head", 0.93))
        )
        self.parts["head"] = [
            (fixed(neck), colours["skin"] * 0.85),
            (hair, colours["hair"]),
            (face, colours["skin"]),
        ]
        depth["torso"] = near[:, [J["neck"], J["pelvis"]]].mean(1)
        depth["head"] = depth["torso"] + 0.01
        self.names = list(self.parts)
        self.order = np.argsort(
            np.stack([depth[n] for n in self.names], 1), axis=1, kind="stable"
        )  # (T, 6)

    def _limb(self, xy, side, row, thick, shade):
        a, b, ra, rb, name = row
        ends = xy[:, J[f"{side}_{a}"]], xy[:, J[f"{side}_{b}"]]
        return fixed(capsules(*ends, ra * thick, rb * thick)), np.minimum(
            self.colours[name] * shade, 255
        )

    def _band(self, xy, side, row, thick):
        a, b, ra, rb, _ = row
        p, q = xy[:, J[f"{side}_{a}"]], xy[:, J[f"{side}_{b}"]]
        return self._strip(p + 0.42 * (q - p), p + 0.72 * (q - p), min(ra, rb) * thick), self.stripe

    @staticmethod
    def _strip(p, q, radius):
        along = q - p
        side = np.stack([-along[..., 1], along[..., 0]], -1)
        side = radius * side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-6)
        return fixed(np.stack([p + side, q + side, q - side, p - side], -2))

    @staticmethod
    def disc(centre, radius):
        """Circles of one radius about centre (T, 2): (T, 16, 2)."""
        return fixed(centre[:, None] + radius * _CIRCLE)

    def _torso(self, xy, thick, style):
        radii = {
            "l_shoulder": 0.042,
            "r_shoulder": 0.042,
            "l_hip": 0.052,
            "r_hip": 0.052,
            "pelvis": 0.062,
            "neck": 0.05,
        }
        corners = [(J[name], radius) for name, radius in radii.items()]
        discs = np.concatenate(
            [self.disc(xy[:, j], r * thick) for j, r in corners], 1
        )  # (T, 96, 2)
        hull = [cv2.convexHull(frame[:, None])[:, 0] for frame in discs]
        parts = [(hull, self.colours["shirt"])]
        if style["stripes"]:
            left, right = (
                np.stack([xy[:, J[f"{s}_shoulder"]], xy[:, J[f"{s}_hip"]]], 1) for s in "lr"
            )
            for at in (0.2, 0.55, 0.9):
                p, q = (side[:, 0] + at * (side[:, 1] - side[:, 0]) for side in (left, right))
                wide = capsules(p, q, 0.034 * thick, 0.034 * thick)
                parts.append((fixed(wide), self.stripe))
        return parts

    def draw(self, canvas, t):
        """Draw frame t in colour."""
        for k in self.order[t]:
            for polygons, rgb in self.parts[self.names[k]]:
                fill(canvas, polygons[t], rgb)

    def mask(self, t, side):
        """(side, side) bool: pixels at least half covered by the actor, whatever stands in front of
        it.
        """
        canvas = np.zeros((side * SS, side * SS), np.uint8)
        for parts in self.parts.values():
            for polygons, rgb in parts:
                if rgb is not self.stripe:  # stripes lie inside what they adorn
                    fill(canvas, polygons[t], 255, smooth=False)
        return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA) > 127


def draw_prop(canvas, kind, centre, scale, rgb):
    """A ball or a box at centre (2,) pixels."""
    if kind == "ball":
        disc = Figure.disc(centre[None], BALL_RADIUS * scale)[0]
        fill(canvas, disc, rgb)
        fill(
            canvas,
            Figure.disc(centre[None] - 0.018 * scale, 0.4 * BALL_RADIUS * scale)[0],
            rgb + (255 - rgb) * 0.6,
        )
        return
    h = BOX_HALF * scale
    corners = np.array([[-1.15, -1], [1.15, -1], [1.15, 1], [-1.15, 1]]) * h
    fill(canvas, fixed(centre + corners), rgb)
    fill(canvas, fixed(centre + corners * (1, 0.16) - (0, 0.25 * h)), rgb * 0.62)
    fill(canvas, fixed(centre + corners * (0.16, 1)), rgb * 0.62)


def draw_shadow(canvas, ground, scale):
    """A soft dark patch on the floor under the actor; ground (2,) pixels."""
    x, y = np.round(ground * SS).astype(int)
    a, b = int(0.2 * scale * SS), int(0.035 * scale * SS)
    strip = canvas[max(y - b - 1, 0) : y + b + 2]  # only these rows change
    if len(strip):
        patch = strip.copy()
        cv2.ellipse(
            patch, (int(x), min(int(y), b + 1)), (a, b), 0, 0, 360, (0, 0, 0), -1, cv2.LINE_AA
        )
        cv2.addWeighted(patch, 0.4, strip, 0.6, 0, strip)
