"""What one demo video looks like: body, viewpoint, tempo, camera, clutter, colours, drawn from two
sets of ranges.

The structure of the picture shifts from `studio` to `street`.  Brightness, tone and the level of
noise are drawn from the same ranges in both (saturation, blur and texture are not), so that
matching global statistics alone undoes little of the shift from studio to street.
"""

from __future__ import annotations

import colorsys

import numpy as np

from nbkit.demo.actions import FRONTAL, Manner
from nbkit.demo.body import Build
from nbkit.errors import NbkitError

DOMAINS = ("studio", "street")
# name: (studio low, high), (street low, high). Lengths are fractions of the picture's side, angles
# degrees.
RANGES = {
    "height": ((0.55, 0.65), (0.44, 0.55)),
    "thick": ((0.92, 1.12), (0.85, 1.60)),
    "head": ((0.95, 1.10), (0.95, 1.45)),
    "legs": ((0.97, 1.04), (0.80, 1.06)),
    "arms": ((0.97, 1.04), (0.88, 1.12)),
    "shoulders": ((0.95, 1.10), (0.85, 1.45)),
    "turn": ((0.0, 14.0), (22.0, 48.0)),
    "elevation": ((0.0, 5.0), (6.0, 22.0)),
    "lean": ((-2.0, 2.0), (-11.0, 11.0)),
    "tempo": ((0.92, 1.10), (0.75, 1.45)),
    "size": ((0.95, 1.05), (0.78, 1.10)),
    "delay": ((0.0, 0.06), (0.0, 0.15)),
    "pan": ((0.0, 0.0), (-0.10, 0.10)),
    "shake": ((0.0, 0.0), (0.002, 0.012)),
    "blur": ((0.2, 0.5), (0.3, 0.8)),
    "clutter": ((0.0, 1.9), (6.0, 12.0)),
    "floor": ((0.80, 0.88), (0.76, 0.90)),
    "place": ((0.46, 0.54), (0.38, 0.62)),
    "relief": ((0.1, 0.3), (0.3, 0.7)),
    "tilt": ((-1.0, 1.0), (-7.0, 7.0)),
    "saturation": ((0.35, 0.85), (0.25, 0.75)),
}
CHANCES = {
    "mirror": (0.15, 0.70),
    "stripes": (0.05, 0.65),
    "occluder": (0.0, 0.55),
    "mover": (0.0, 0.60),
    "loose": (0.35, 0.35),
    "shorts": (0.3, 0.5),
    "sleeves": (0.6, 0.4),
}
# Statistics of the whole picture: the same in both domains.
SHARED = {
    "gamma": (0.72, 1.20),
    "gain": (0.80, 1.10),
    "black": (0.0, 28.0),
    "noise": (1.0, 6.0),
    "tint": (0.86, 1.0),
    "figure": (0.62, 0.90),
    "backdrop": (0.12, 0.27),
}


def sample_style(rng: np.random.Generator, domain: str, shift: float = 1.0) -> dict[str, float]:
    """Numbers of one video. `street` at shift 0 draws exactly what `studio` draws from the same
    generator.

    shift is in [0, 1]: every range and chance moves linearly from studio's to street's.
    Raises NbkitError for another domain or a shift outside [0, 1].
    """
    if domain not in DOMAINS:
        raise NbkitError(f"domain={domain!r} is not one of {', '.join(DOMAINS)}")
    if not 0 <= shift <= 1:
        raise NbkitError(f"shift={shift} must be between 0 (street equals studio) and 1")
    s = shift if domain == "street" else 0.0
    style = {}
    for name, (near, far) in RANGES.items():
        low, high = ((1 - s) * a + s * b for a, b in zip(near, far))
        style[name] = low + (high - low) * rng.random()
    for name, (near, far) in CHANCES.items():
        style[name] = float(rng.random() < (1 - s) * near + s * far)
    for name, (low, high) in SHARED.items():
        style[name] = rng.uniform(low, high)
    style |= {
        "phase": rng.random(),
        "variant": rng.random(),
        "turn_sign": rng.choice([-1.0, 1.0]),
        "shift": s,
    }
    style["seed"] = int(rng.integers(2**31))
    return style


def build_of(style) -> Build:
    """The body's proportions."""
    return Build(style["legs"], style["arms"], style["shoulders"], style["head"])


def manner_of(style) -> Manner:
    """The performance's tempo, size, phase, variant and delay."""
    return Manner(style["tempo"], style["size"], style["phase"], style["variant"], style["delay"])


def yaw_of(style, action: str) -> float:
    """Degrees between the body's facing and the camera: 0 looks at the camera, 90 faces the right
    edge.
    """
    if action in FRONTAL:
        return style["turn_sign"] * 0.7 * style["turn"]
    return 90.0 - style["turn"]  # turned towards the camera


def in_haze(curve, rng, strength) -> np.ndarray:
    """A tone curve (1, 256, 3) uint8 seen through haze: light (1 - h) * light + h * airlight
    (Koschmieder, 1924).

    strength in [0, 1): h of the video is drawn from [strength / 2, strength]; the airlight is a
    bright, nearly grey colour.
    """
    h, airlight = strength * rng.uniform(0.5, 1.0), rng.uniform(175, 225) + rng.uniform(-12, 12, 3)
    return np.clip((1 - h) * curve.astype(float) + h * airlight, 0, 255).astype(np.uint8)


def colour(rng, saturation, luma) -> np.ndarray:
    """Random hue of a given brightness: RGB (3,) in [0, 1] with Rec. 601 luma close to `luma`."""
    rgb = np.array(colorsys.hsv_to_rgb(rng.random(), saturation, 1.0))
    return with_luma(rgb, luma)


def with_luma(rgb, luma) -> np.ndarray:
    """The colour made darker (scaled) or lighter (mixed with white) until its luma is `luma`."""
    now = float(rgb @ (0.299, 0.587, 0.114))
    if now >= luma:
        return rgb * luma / now
    return rgb + (1 - rgb) * (luma - now) / (1 - now)


def wardrobe(rng, style) -> dict[str, np.ndarray]:
    """Colours of the parts of the figure, all brighter than the backdrop (RGB in 0..255)."""
    s, v = style["saturation"], style["figure"]
    skin = with_luma(
        np.array([1.0, rng.uniform(0.66, 0.82), rng.uniform(0.45, 0.66)]),
        v * rng.uniform(0.85, 1.05),
    )
    shirt, trousers = colour(rng, s, v), colour(rng, s, v * rng.uniform(0.82, 1.0))
    parts = {
        "skin": skin,
        "shirt": shirt,
        "trousers": trousers,
        "hair": colour(rng, 0.5, v * 0.62),
        "shoes": colour(rng, 0.3, min(0.92, v * 1.1)),
        "prop": colour(rng, 0.8, v),
    }
    parts["sleeve"] = parts["shirt"] if style["sleeves"] else skin
    parts["leg"] = skin if style["shorts"] else parts["trousers"]
    parts["stripe"] = colour(rng, s, v * 0.68)
    return {name: 255 * np.clip(value, 0, 1) for name, value in parts.items()}


def tone_curve(style) -> np.ndarray:
    """Look-up table (1, 256, 3) uint8 of the video: gamma, gain, black level and a tint; monotone,
    so order is kept.
    """
    x = np.linspace(0, 1, 256)[:, None] ** style["gamma"]
    tint = np.array([1.0, (1 + style["tint"]) / 2, style["tint"]])
    tint = tint if style["variant"] < 0.5 else tint[::-1]
    return np.clip(
        style["black"] + (255 - style["black"]) * style["gain"] * x * tint, 0, 255
    ).astype(np.uint8)[None]
