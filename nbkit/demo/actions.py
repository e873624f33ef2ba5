"""Eight actions of the demo body: joint angles over time, the paths of ball and box, and untrimmed
sequences.

Channels and angles are those of `nbkit.demo.body`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nbkit.demo.body import REST, Build, J, skeleton

FPS = 25
ACTIONS = ("wave", "jumping_jack", "walk", "squat", "throw", "kick", "cartwheel", "lift")
FRONTAL = ("wave", "jumping_jack", "cartwheel")  # seen from the front; the others from the side
PROPS = {"throw": "ball", "kick": "ball", "lift": "box"}
BOX_HALF = 0.085  # half the side of the lifted box, in body heights
BALL_RADIUS = 0.055


@dataclass
class Manner:
    """How one performance differs from another of the same action."""

    tempo: float = 1.0  # > 1 is faster
    size: float = 1.0  # multiplies the angles of the movement
    phase: float = 0.0  # start of a cyclic action, in cycles
    variant: float = 0.0  # in [0, 1): picks between ways of doing it (one or both arms, ...)
    delay: float = 0.0  # seconds of standing before an action that happens once


@dataclass
class Motion:
    """A performance. `joints` (T, 20, 3), `prop` (T, 3), NaN where it is not there; `action`,
    `present` (T,) bool.
    """

    joints: np.ndarray
    prop: np.ndarray
    action: np.ndarray
    present: np.ndarray
    pose: dict = field(repr=False, default_factory=dict)


def _spline(t, times, values):
    """Monotone cubic through the keys (no overshoot), constant outside them. t (T,) -> (T,)."""
    times, values = np.asarray(times, float), np.asarray(values, float)
    slope = np.diff(values) / np.diff(times)
    tangent = np.zeros_like(values)
    same = slope[1:] * slope[:-1] > 0
    tangent[1:-1][same] = 2 * slope[1:][same] * slope[:-1][same] / (slope[1:] + slope[:-1])[same]
    t = np.clip(t, times[0], times[-1])
    k = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 2)
    h = times[k + 1] - times[k]
    u = (t - times[k]) / h
    return (
        (1 + 2 * u) * (1 - u) ** 2 * values[k]
        + u * (1 - u) ** 2 * h * tangent[k]
        + u * u * (3 - 2 * u) * values[k + 1]
        + u * u * (u - 1) * h * tangent[k + 1]
    )


def _keyed(t, *keys):
    """Keys (time, {channel: value}); a channel a key does not name is at rest there."""
    times = [when for when, _ in keys]
    names = {name for _, pose in keys for name in pose}
    return {
        name: _spline(t, times, [pose.get(name, REST[name]) for _, pose in keys]) for name in names
    }


def _wave(t, m):
    up = _spline(t, (0.0, 0.28), (0.0, 1.0)) if m.variant < 0.6 else np.ones_like(t)
    swing = np.sin(2 * np.pi * (2.0 * t + m.phase)) * m.size
    pose = {}
    for arm, sign in (("ra", 1.0),) if m.variant % 0.3 < 0.2 else (("ra", 1.0), ("la", -1.0)):
        pose |= {
            f"{arm}_a1": 9 + up * (116 + sign * 13 * swing),
            f"{arm}_a2": 6 + up * (150 + sign * 42 * swing),
        }
    return pose


def _jumping_jack(t, m):
    phase = 2 * np.pi * (1.4 * t + (m.phase if m.variant > 0.5 else 0.0))
    u = 0.5 - 0.5 * np.cos(phase)
    arm, leg = u * 148 * m.size, 3 + u * 27 * m.size
    pose = {"jump": 0.07 * np.sin(phase) ** 2}
    for side in "lr":
        pose |= {
            f"{side}a_a1": 9 + arm,
            f"{side}a_a2": 6 + arm * 1.08,
            f"{side}l_a1": leg,
            f"{side}l_a2": leg,
        }
    return pose


def _walk(t, m):
    phase = 2 * np.pi * (1.25 * t + m.phase)
    pose = {"dx": 0.55 * m.size * t, "pitch": np.full_like(t, 4.0)}
    for side, shift in (("l", 0.0), ("r", np.pi)):
        hip = 30 * m.size * np.sin(phase + shift)
        knee = 6 + 52 * np.maximum(0, np.cos(phase + shift)) ** 1.3
        swing = -m.size * np.sin(phase + shift)  # arms against legs
        pose |= {
            f"{side}l_f1": hip + 4,
            f"{side}l_f2": hip + 4 - knee,
            f"{side}a_f1": 26 * swing,
            f"{side}a_f2": 20 + 30 * swing,
        }
    return pose


def _squat(t, m):
    u = (0.5 - 0.5 * np.cos(2 * np.pi * (1.05 * t + (m.phase if m.variant > 0.5 else 0.0)))) * min(
        m.size, 1.05
    )
    reach = 88.0 if m.variant % 0.5 < 0.32 else 168.0  # arms forward, or overhead
    pose = {"pitch": 38 * u}
    for side in "lr":
        pose |= {
            f"{side}l_f1": 92 * u,
            f"{side}l_f2": -48 * u,
            f"{side}l_a1": 4 + 6 * u,
            f"{side}a_f1": 3 + (reach - 3) * u,
            f"{side}a_f2": 14 + (reach - 14) * u,
        }
    return pose


def _throw(t, m):
    s = m.size
    hold = {"ra_f1": 18, "ra_f2": 100, "ra_a2": 0, "la_f1": 18, "la_f2": 95, "la_a2": 0}
    wind = {
        "ra_f1": 222 * s,
        "ra_f2": 262,
        "la_f1": 70,
        "la_f2": 75,
        "pitch": -15 * s,
        "ll_f1": 34 * s,
        "ll_f2": -6,
        "rl_f1": -8,
        "rl_f2": -14,
    }
    fling = {
        "ra_f1": 138,
        "ra_f2": 142,
        "la_f1": 5,
        "la_f2": 40,
        "pitch": 14 * s,
        "ll_f1": 28 * s,
        "ll_f2": 4,
        "rl_f1": -24,
        "rl_f2": -38,
        "dx": 0.10,
    }
    after = {
        "ra_f1": 22,
        "ra_f2": 30,
        "la_f1": -25,
        "la_f2": 0,
        "pitch": 30 * s,
        "ll_f1": 30 * s,
        "ll_f2": -4,
        "rl_f1": -26,
        "rl_f2": -50,
        "dx": 0.14,
    }
    return _keyed(
        t,
        (0.0, hold),
        (0.16, hold | {"ra_f1": 60, "ra_f2": 130}),
        (0.50, wind),
        (0.68, fling),
        (0.86, after),
        (1.3, {"dx": 0.14, "pitch": 6, "ll_f1": 14, "ll_f2": 2, "rl_f1": -10, "rl_f2": -16}),
    )


def _kick(t, m):
    s = m.size
    step = {
        "ll_f1": 22,
        "ll_f2": 0,
        "rl_f1": -22,
        "rl_f2": -45,
        "la_f1": 20,
        "la_f2": 30,
        "ra_f1": -20,
        "dx": 0.05,
    }
    back = {
        "rl_f1": -42 * s,
        "rl_f2": -112 * s,
        "la_f1": 55,
        "la_f2": 65,
        "ra_f1": -40,
        "ra_f2": -30,
        "pitch": 10,
        "ll_f1": 4,
        "ll_f2": -6,
        "dx": 0.12,
    }
    hit = {
        "rl_f1": 26,
        "rl_f2": 14,
        "pitch": -4,
        "ll_f2": -6,
        "la_f1": 10,
        "la_f2": 25,
        "ra_f1": 15,
        "ra_f2": 35,
        "dx": 0.14,
    }
    high = {
        "rl_f1": 82 * s,
        "rl_f2": 74 * s,
        "pitch": -20,
        "ll_f1": -4,
        "ll_f2": -8,
        "la_f1": -45,
        "la_f2": -30,
        "ra_f1": 45,
        "ra_f2": 60,
        "dx": 0.16,
    }
    return _keyed(
        t,
        (0.0, {}),
        (0.2, step),
        (0.46, back),
        (0.62, hit),
        (0.78, high),
        (1.02, {"dx": 0.16, "rl_f2": -20}),
        (1.25, {"dx": 0.16}),
    )


def _cartwheel(t, m):
    up = {
        "la_a1": 152,
        "la_a2": 162,
        "ra_a1": 152,
        "ra_a2": 162,
        "ll_a1": 14,
        "ll_a2": 14,
        "rl_a1": 14,
        "rl_a2": 14,
    }
    star = up | {
        "ll_a1": 34 * m.size,
        "ll_a2": 34 * m.size,
        "rl_a1": 34 * m.size,
        "rl_a2": 34 * m.size,
    }
    return _keyed(
        t,
        (0.0, {}),
        (0.2, up),
        (0.42, star | {"roll": 60, "dy": 0.18}),
        (0.62, star | {"roll": 180, "dy": 0.4}),
        (0.82, star | {"roll": 300, "dy": 0.62}),
        (1.02, up | {"roll": 360, "dy": 0.74}),
        (1.3, {"roll": 360, "dy": 0.76}),
    )


def _lift(t, m):
    def both(f1, f2, **more):
        return {
            f"{side}a_{k}": v
            for side in "lr"
            for k, v in (("f1", f1), ("f2", f2), ("a1", 4), ("a2", -2))
        } | more

    legs = {
        f"{side}l_{k}": v
        for side in "lr"
        for k, v in (("f1", 84 * min(m.size, 1.05)), ("f2", -40), ("a1", 8))
    }
    down = both(30, 34, pitch=62, **legs)
    top = both(150, 172) if m.variant < 0.7 else both(40, 100)  # overhead, or held at the chest
    return _keyed(
        t,
        (0.0, {}),
        (0.36, down),
        (0.48, down),
        (0.78, both(16, 78, pitch=2)),
        (1.1, top),
        (1.3, top),
    )


_POSES = {
    "wave": _wave,
    "jumping_jack": _jumping_jack,
    "walk": _walk,
    "squat": _squat,
    "throw": _throw,
    "kick": _kick,
    "cartwheel": _cartwheel,
    "lift": _lift,
}
_ONCE = {
    "throw": 0.68,
    "kick": 0.62,
    "lift": 0.42,
    "cartwheel": 0.0,
}  # seconds: release, strike, grasp


def _ballistic(start, velocity, seconds):
    """Free flight from start (3,) with one bounce floor at the ball's radius: (n, 3)."""
    s = seconds[:, None]
    path = start + s * np.asarray(velocity) - np.array([0, 0, 1.6]) * s**2
    path[:, 2] = BALL_RADIUS + np.abs(path[:, 2] - BALL_RADIUS)
    return path


def _prop_path(action, joints, t):
    """Where the ball or the box is: (T, 3), NaN for actions without one. `t` is the action's own
    time (T,).
    """
    prop = np.full((len(t), 3), np.nan)
    if action not in PROPS:
        return prop
    event = min(int(np.searchsorted(t, _ONCE[action])), len(t) - 1)
    later = np.arange(len(t)) >= event
    flight = np.maximum(0, t - t[event])[later]
    right, left = joints[:, J["r_hand"]], joints[:, J["l_hand"]]
    if action == "throw":
        prop[:] = right + 0.03 * np.array([1.0, 0, 0.6])
        prop[later] = _ballistic(prop[event], (2.5, 0, 0.75), flight)
    elif action == "kick":
        toe = joints[event, J["r_toe"]]
        prop[:] = (toe[0] + BALL_RADIUS, toe[1], BALL_RADIUS)
        prop[later] = _ballistic(prop[event], (2.4, 0, 0.85), flight)
    else:
        middle = (left + right) / 2 + np.array([0.03, 0, 0])
        rest = np.array([middle[event, 0] + 0.03, 0.0, BOX_HALF])
        prop[:] = rest
        prop[later] = (
            middle[later] + (rest - middle[event]) * np.maximum(0, 1 - flight / 0.5)[:, None]
        )
    return prop


def perform(action: str, n: int, build: Build, manner: Manner) -> Motion:
    """One performance of `action` in `n` frames at 25 fps."""
    t = (np.arange(n) / FPS - (manner.delay if action in _ONCE else 0.0)) * manner.tempo
    t = np.maximum(t, 0.0) if action in _ONCE else t
    pose = {name: np.full(n, value) for name, value in REST.items()} | _POSES[action](t, manner)
    breath = np.sin(2 * np.pi * (0.9 * np.arange(n) / FPS + manner.phase))
    pose["pitch"] = pose["pitch"] + 1.2 * breath
    joints = skeleton(pose, build, planted=action in ("squat", "lift"))
    yes = np.ones(n, bool)
    return Motion(joints, _prop_path(action, joints, t), yes, yes.copy(), pose)


def untrimmed(
    action: str, n: int, build: Build, manner: Manner, rng: np.random.Generator
) -> Motion:
    """Two performances in `n` frames with standing and empty stretches around them.

    `action` is False on the background frames; `present` is False where nobody is in the picture.
    """
    length = min(int(round(1.28 * FPS / manner.tempo)), n // 3)
    least = min(2, (n - 2 * length) // 5)
    slack = n - 2 * length - 5 * least
    cuts = np.sort(rng.integers(0, slack + 1, 4))
    gaps = least + np.diff(
        np.concatenate([[0], cuts, [slack]])
    )  # lead-in, rest, empty, second lead-in, tail
    one = perform(action, length, build, manner)
    stand = skeleton({k: np.full(1, v) for k, v in REST.items()}, build, planted=True)[0]  # (20, 3)

    def idle(count, at, prop, present):
        sway = 0.006 * np.sin(2 * np.pi * (0.9 * np.arange(count) / FPS + manner.phase))
        joints = np.repeat((stand + at)[None], count, 0)
        joints[:, :12, 0] += sway[:, None]  # the upper body breathes, the feet stay
        return (
            joints,
            np.repeat(prop[None], count, 0),
            np.zeros(count, bool),
            np.full(count, present),
        )

    end = np.array([*one.joints[-1, J["pelvis"], :2] - stand[J["pelvis"], :2], 0.0])
    act = (one.joints, one.prop, one.action, one.present)
    start, first, last = np.zeros(3), one.prop[0], one.prop[-1]
    parts = [
        idle(gaps[0], start, first, bool(rng.random() < 0.6)),
        act,
        idle(gaps[1], end, last, True),
        idle(gaps[2], end, last * np.nan, False),
        idle(gaps[3], start, first, True),
        act,
        idle(gaps[4], end, last, bool(rng.random() < 0.6)),
    ]
    return Motion(*(np.concatenate(column) for column in zip(*parts)))
