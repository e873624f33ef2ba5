"""What one demo video looks like: numbers and colours drawn from two sets of ranges.

Body, viewpoint, tempo, camera, clutter, saturation, blur and texture shift from `studio` to
`street`.  Brightness, tone and the level of noise are drawn from the same ranges in both, so that
matching global statistics alone undoes little of the shift.
"""

from __future__ import annotations

import colorsys

import numpy as np

from nbkit.demo.actions import FRONTAL
from nbkit.errors import NbkitError

DOMAINS = ("studio", "street")


def _table(text: str) -> dict[str, tuple[float, ...]]:
    """Numbers by name; the first line is a heading."""
    lines = [line.split() for line in text.strip().splitlines()[1:]]
    return {name: tuple(float(number) for number in numbers) for name, *numbers in lines}


# Low and high ends.  Lengths are fractions of the picture's side, angles degrees.
RANGES = _table("""
             studio          street
height       0.55   0.65     0.44   0.55
thick        0.92   1.12     0.85   1.60
head         0.95   1.10     0.95   1.45
legs         0.97   1.04     0.80   1.06
arms         0.97   1.04     0.88   1.12
shoulders    0.95   1.10     0.85   1.45
turn         0.0    14.0     22.0   48.0
elevation    0.0    5.0      6.0    22.0
lean         -2.0   2.0      -11.0  11.0
tempo        0.92   1.10     0.75   1.45
size         0.95   1.05     0.78   1.10
delay        0.0    0.06     0.0    0.15
pan          0.0    0.0      -0.10  0.10
shake        0.0    0.0      0.002  0.012
blur         0.2    0.5      0.3    0.8
clutter      0.0    1.9      6.0    12.0
floor        0.80   0.88     0.76   0.90
place        0.46   0.54     0.38   0.62
relief       0.1    0.3      0.3    0.7
tilt         -1.0   1.0      -7.0   7.0
saturation   0.35   0.85     0.25   0.75
""")
# The probability that a video has it.
CHANCES = _table("""
             studio  street
mirror       0.15    0.70
stripes      0.05    0.65
occluder     0.0     0.55
mover        0.0     0.60
loose        0.35    0.35
shorts       0.3     0.5
sleeves      0.6     0.4
""")
# Statistics of the whole picture: the same in both domains.
SHARED = _table("""
             low     high
gamma        0.72    1.20
gain         0.80    1.10
black        0.0     28.0
noise        1.0     6.0
tint         0.86    1.0
figure       0.62    0.90
backdrop     0.12    0.27
""")
LUMA = (0.299, 0.587, 0.114)  # Rec. 601


def sample_style(rng: np.random.Generator, domain: str, shift: float = 1.0) -> dict[str, float]:
    """Draw the numbers of one video; `street` at shift 0 draws exactly what `studio` draws.

    Args:
        shift: in [0, 1]; every range and chance moves linearly from studio's to street's.

    Raises:
        NbkitError: a shift outside [0, 1].
    """
    if not 0 <= shift <= 1:
        raise NbkitError(f"shift={shift} must be between 0 (street equals studio) and 1")
    s = 0.0
    if domain == "street":
        s = shift
    style = {}
    for name, (studio_low, studio_high, street_low, street_high) in RANGES.items():
        low = (1 - s) * studio_low + s * street_low
        high = (1 - s) * studio_high + s * street_high
        style[name] = low + (high - low) * rng.random()
    for name, (studio, street) in CHANCES.items():
        style[name] = float(rng.random() < (1 - s) * studio + s * street)
    for name, (low, high) in SHARED.items():
        style[name] = rng.uniform(low, high)
    style["phase"] = rng.random()
    style["variant"] = rng.random()
    style["turn_sign"] = rng.choice([-1.0, 1.0])
    style["seed"] = int(rng.integers(2**31))
    return style


def yaw_of(style: dict[str, float], action: str) -> float:
    """Degrees between facing and camera: 0 looks at the camera, 90 faces the right edge."""
    if action in FRONTAL:
        return style["turn_sign"] * 0.7 * style["turn"]
    return 90.0 - style["turn"]  # turned towards the camera


# --- colours: RGB (3,) ---------------------------------------------------------------------------
def colour(rng: np.random.Generator, saturation: float, luma: float) -> np.ndarray:
    """A random hue with luma close to `luma`, in [0, 1]."""
    rgb = np.array(colorsys.hsv_to_rgb(rng.random(), saturation, 1.0))
    return with_luma(rgb, luma)


def with_luma(rgb: np.ndarray, luma: float) -> np.ndarray:
    """The colour made darker (scaled) or lighter (mixed with white) until its luma is `luma`."""
    now = float(rgb @ LUMA)
    if now >= luma:
        return rgb * luma / now
    return rgb + (1 - rgb) * (luma - now) / (1 - now)


def wardrobe(rng: np.random.Generator, style: dict[str, float]) -> dict[str, np.ndarray]:
    """Colours of the parts of the figure in 0..255, all brighter than the backdrop."""
    saturation, luma = style["saturation"], style["figure"]
    skin = np.array([1.0, rng.uniform(0.66, 0.82), rng.uniform(0.45, 0.66)])
    skin = with_luma(skin, luma * rng.uniform(0.85, 1.05))
    shirt = colour(rng, saturation, luma)
    trousers = colour(rng, saturation, luma * rng.uniform(0.82, 1.0))
    parts = {
        "skin": skin,
        "shirt": shirt,
        "trousers": trousers,
        "hair": colour(rng, 0.5, luma * 0.62),
        "shoes": colour(rng, 0.3, min(0.92, luma * 1.1)),
        "prop": colour(rng, 0.8, luma),
        "sleeve": skin,
        "leg": trousers,
        "stripe": colour(rng, saturation, luma * 0.68),
    }
    if style["sleeves"]:
        parts["sleeve"] = shirt
    if style["shorts"]:
        parts["leg"] = skin
    return {name: 255 * np.clip(value, 0, 1) for name, value in parts.items()}


# --- tone curves: look-up tables (1, 256, 3) uint8 -----------------------------------------------
def tone_curve(style: dict[str, float]) -> np.ndarray:
    """Gamma, gain, black level and a tint; monotone, so the order of grey levels is kept."""
    level = np.linspace(0, 1, 256)[:, None] ** style["gamma"]
    tint = np.array([1.0, (1 + style["tint"]) / 2, style["tint"]])
    if style["variant"] >= 0.5:
        tint = tint[::-1]
    black = style["black"]
    curve = black + (255 - black) * style["gain"] * level * tint
    return np.clip(curve, 0, 255).astype(np.uint8)[None]


def in_haze(curve: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """A tone curve seen through haze: (1 - h) * light + h * airlight (Koschmieder, 1924).

    strength in [0, 1): h of the video is drawn from [strength / 2, strength].  The airlight is a
    bright, nearly grey colour.
    """
    h = strength * rng.uniform(0.5, 1.0)
    airlight = rng.uniform(175, 225) + rng.uniform(-12, 12, 3)
    return np.clip((1 - h) * curve.astype(float) + h * airlight, 0, 255).astype(np.uint8)
