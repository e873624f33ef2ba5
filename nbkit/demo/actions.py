"""Eight actions of the demo body: joint angles (see `nbkit.demo.body`) over time, ball and box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from nbkit.demo.body import REST, Build, J, skeleton

FPS = 25
FRONTAL = ("wave", "jumping_jack", "cartwheel")  # seen from the front; the others from the side
PROPS = {"throw": "ball", "kick": "ball", "lift": "box"}
BOX_HALF = 0.085  # half the side of the lifted box, in body heights
BALL_RADIUS = 0.055
# Actions that happen once, with the second of release, strike or grasp.
EVENTS = {"throw": 0.68, "kick": 0.62, "lift": 0.42, "cartwheel": 0.0}

# Poses at given seconds.  A dot is the resting pose, a value with an s grows with the size of the
# movement, and a channel with a star stands for both sides.
THROW = """
seconds  ra_f1  ra_f2  ra_a2  la_f1  la_f2  la_a2  pitch  ll_f1  ll_f2  rl_f1  rl_f2  dx
0.00     18     100    0      18     95     0      .      .      .      .      .      .
0.16     60     130    0      18     95     0      .      .      .      .      .      .
0.50     222s   262    .      70     75     .      -15s   34s    -6     -8     -14    .
0.68     138    142    .      5      40     .      14s    28s    4      -24    -38    0.10
0.86     22     30     .      -25    0      .      30s    30s    -4     -26    -50    0.14
1.30     .      .      .      .      .      .      6      14     2      -10    -16    0.14
"""
KICK = """
seconds  ll_f1  ll_f2  rl_f1  rl_f2  la_f1  la_f2  ra_f1  ra_f2  pitch  dx
0.00     .      .      .      .      .      .      .      .      .      .
0.20     22     0      -22    -45    20     30     -20    .      .      0.05
0.46     4      -6     -42s   -112s  55     65     -40    -30    10     0.12
0.62     .      -6     26     14     10     25     15     35     -4     0.14
0.78     -4     -8     82s    74s    -45    -30    45     60     -20    0.16
1.02     .      .      .      -20    .      .      .      .      .      0.16
1.25     .      .      .      .      .      .      .      .      .      0.16
"""
CARTWHEEL = """
seconds  *a_a1  *a_a2  *l_a1  *l_a2  roll   dy
0.00     .      .      .      .      .      .
0.20     152    162    14     14     .      .
0.42     152    162    34s    34s    60     0.18
0.62     152    162    34s    34s    180    0.40
0.82     152    162    34s    34s    300    0.62
1.02     152    162    14     14     360    0.74
1.30     .      .      .      .      360    0.76
"""
LIFT = """
seconds  *a_f1  *a_f2  *a_a1  *a_a2  pitch  *l_f1  *l_f2  *l_a1
0.00     .      .      .      .      .      .      .      .
0.36     30     34     4      -2     62     84s    -40    8
0.48     30     34     4      -2     62     84s    -40    8
0.78     16     78     4      -2     2      .      .      .
"""
TO_THE_CHEST = """
1.10     40     100    4      -2     .      .      .      .
1.30     40     100    4      -2     .      .      .      .
"""
OVERHEAD = """
1.10     150    172    4      -2     .      .      .      .
1.30     150    172    4      -2     .      .      .      .
"""


@dataclass
class Manner:
    """How one performance differs from another of the same action.

    tempo above 1 is faster; size multiplies the angles of the movement; phase is the start of a
    cyclic action, in cycles; variant in [0, 1) picks between ways of doing it (one arm or both);
    delay is the seconds of standing before an action that happens once.
    """

    tempo: float = 1.0
    size: float = 1.0
    phase: float = 0.0
    variant: float = 0.0
    delay: float = 0.0


class Motion(NamedTuple):
    """A performance: joints (T, 20, 3), and prop (T, 3), NaN where there is no ball or box.

    action (T,) is False on background frames, present (T,) where nobody is in the picture.
    """

    joints: np.ndarray
    prop: np.ndarray
    action: np.ndarray
    present: np.ndarray


def perform(action: str, n: int, build: Build, manner: Manner) -> Motion:
    """One performance of `action` in `n` frames at 25 fps."""
    seconds = np.arange(n) / FPS
    t = seconds * manner.tempo  # (n,) the action's own time
    if action in EVENTS:
        t = np.maximum((seconds - manner.delay) * manner.tempo, 0.0)
    pose = {name: np.full(n, value) for name, value in REST.items()}
    pose |= POSES[action](t, manner)
    pose["pitch"] = pose["pitch"] + 1.2 * _breath(n, manner)
    joints = skeleton(pose, build, planted=action in ("squat", "lift"))
    everywhere = np.ones(n, bool)
    return Motion(joints, _prop_path(action, joints, t), everywhere, everywhere.copy())


def performed_twice(
    action: str, n: int, build: Build, manner: Manner, rng: np.random.Generator
) -> Motion:
    """Two performances in `n` frames with standing and empty stretches around them."""
    length = min(int(round(1.28 * FPS / manner.tempo)), n // 3)
    lead, rest, empty, second_lead, tail = _gaps(n, length, rng)
    act = perform(action, length, build, manner)
    resting = {name: np.full(1, value) for name, value in REST.items()}
    stand = skeleton(resting, build, planted=True)[0]  # (20, 3)

    def idle(count: int, moved: np.ndarray, prop: np.ndarray, present: bool) -> Motion:
        joints = np.repeat((stand + moved)[None], count, 0)
        # The upper body breathes, the feet stay.
        joints[:, :12, 0] += 0.006 * _breath(count, manner)[:, None]
        props = np.repeat(prop[None], count, 0)
        return Motion(joints, props, np.zeros(count, bool), np.full(count, present))

    start = np.zeros(3)
    end = act.joints[-1, J["pelvis"]] - stand[J["pelvis"]]
    end[2] = 0.0
    first, last = act.prop[0], act.prop[-1]
    seen_before, seen_after = rng.random(2) < 0.6
    parts = [
        idle(lead, start, first, seen_before),
        act,
        idle(rest, end, last, True),
        idle(empty, end, last * np.nan, False),
        idle(second_lead, start, first, True),
        act,
        idle(tail, end, last, seen_after),
    ]
    return Motion(*map(np.concatenate, zip(*parts)))


def _breath(count: int, manner: Manner) -> np.ndarray:
    return np.sin(2 * np.pi * (0.9 * np.arange(count) / FPS + manner.phase))


def _gaps(n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Five random numbers of frames that fill what two performances leave of `n`."""
    least = min(2, (n - 2 * length) // 5)
    slack = n - 2 * length - 5 * least
    cuts = np.sort(rng.integers(0, slack + 1, 4))
    return least + np.diff(np.concatenate([[0], cuts, [slack]]))


# --- poses: the time of the action (T,) and its manner -> channels (T,) --------------------------
def _wave(t, manner):
    up = np.ones_like(t)
    if manner.variant < 0.6:  # the arm rises first
        up = _spline(t, (0.0, 0.28), (0.0, 1.0))
    swing = np.sin(2 * np.pi * (2.0 * t + manner.phase)) * manner.size
    pose = {
        "ra_a1": 9 + up * (116 + 13 * swing),
        "ra_a2": 6 + up * (150 + 42 * swing),
    }
    if manner.variant % 0.3 >= 0.2:  # both arms
        pose["la_a1"] = 9 + up * (116 - 13 * swing)
        pose["la_a2"] = 6 + up * (150 - 42 * swing)
    return pose


def _jumping_jack(t, manner):
    phase = 2 * np.pi * (1.4 * t + _start(manner))
    open = 0.5 - 0.5 * np.cos(phase)
    arm = open * 148 * manner.size
    leg = 3 + open * 27 * manner.size
    pose = {"jump": 0.07 * np.sin(phase) ** 2}
    for side in "lr":
        pose[f"{side}a_a1"] = 9 + arm
        pose[f"{side}a_a2"] = 6 + arm * 1.08
        pose[f"{side}l_a1"] = leg
        pose[f"{side}l_a2"] = leg
    return pose


def _walk(t, manner):
    phase = 2 * np.pi * (1.25 * t + manner.phase)
    pose = {"dx": 0.55 * manner.size * t, "pitch": np.full_like(t, 4.0)}
    for side, shift in (("l", 0.0), ("r", np.pi)):
        hip = 30 * manner.size * np.sin(phase + shift)
        knee = 6 + 52 * np.maximum(0, np.cos(phase + shift)) ** 1.3
        against = -manner.size * np.sin(phase + shift)  # arms swing against legs
        pose[f"{side}l_f1"] = hip + 4
        pose[f"{side}l_f2"] = hip + 4 - knee
        pose[f"{side}a_f1"] = 26 * against
        pose[f"{side}a_f2"] = 20 + 30 * against
    return pose


def _squat(t, manner):
    phase = 2 * np.pi * (1.05 * t + _start(manner))
    depth = (0.5 - 0.5 * np.cos(phase)) * min(manner.size, 1.05)
    reach = 168.0  # arms overhead
    if manner.variant % 0.5 < 0.32:
        reach = 88.0  # arms forward
    pose = {"pitch": 38 * depth}
    for side in "lr":
        pose[f"{side}l_f1"] = 92 * depth
        pose[f"{side}l_f2"] = -48 * depth
        pose[f"{side}l_a1"] = 4 + 6 * depth
        pose[f"{side}a_f1"] = 3 + (reach - 3) * depth
        pose[f"{side}a_f2"] = 14 + (reach - 14) * depth
    return pose


def _lift(t, manner):
    table = LIFT + TO_THE_CHEST
    if manner.variant < 0.7:
        table = LIFT + OVERHEAD
    return _between_keys(table, t, replace(manner, size=min(manner.size, 1.05)))


def _start(manner: Manner) -> float:
    """Where in its cycle a jumping jack or a squat starts: half of them from standing."""
    if manner.variant > 0.5:
        return manner.phase
    return 0.0


def _between_keys(table: str, t: np.ndarray, manner: Manner) -> dict[str, np.ndarray]:
    """Channels at the times t (T,), each a smooth curve through its column of `table`."""
    header, *rows = [line.split() for line in table.splitlines() if line]
    seconds = [float(row[0]) for row in rows]
    pose = {}
    for column, label in enumerate(header[1:], start=1):
        for side in "lr":
            name = label.replace("*", side)
            values = [_angle(row[column], REST[name], manner.size) for row in rows]
            pose[name] = _spline(t, seconds, values)
    return pose


def _angle(cell: str, at_rest: float, size: float) -> float:
    if cell == ".":
        return at_rest
    if cell.endswith("s"):
        return float(cell[:-1]) * size
    return float(cell)


def _spline(t, times, values):
    """Monotone cubic through the keys (no overshoot), constant outside them. t (T,) -> (T,)."""
    times, values = np.asarray(times), np.asarray(values)
    slope = np.diff(values) / np.diff(times)
    before, after = slope[:-1], slope[1:]
    same = after * before > 0  # elsewhere the curve turns, and its tangent is flat
    tangent = np.zeros_like(values)
    tangent[1:-1][same] = 2 * after[same] * before[same] / (after + before)[same]
    t = np.clip(t, times[0], times[-1])
    k = np.searchsorted(times, t, side="right") - 1
    k = np.clip(k, 0, len(times) - 2)
    h = times[k + 1] - times[k]
    u = (t - times[k]) / h
    # The four cubic Hermite polynomials.
    return (
        (1 + 2 * u) * (1 - u) ** 2 * values[k]
        + u * (1 - u) ** 2 * h * tangent[k]
        + u * u * (3 - 2 * u) * values[k + 1]
        + u * u * (u - 1) * h * tangent[k + 1]
    )


POSES = {
    "wave": _wave,
    "jumping_jack": _jumping_jack,
    "walk": _walk,
    "squat": _squat,
    "throw": partial(_between_keys, THROW),
    "kick": partial(_between_keys, KICK),
    "cartwheel": partial(_between_keys, CARTWHEEL),
    "lift": _lift,
}
ACTIONS = tuple(POSES)


# --- the ball and the box ------------------------------------------------------------------------
def _prop_path(action: str, joints: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Where the ball or the box is at the action's own times t (T,): (T, 3), NaN without one."""
    prop = np.full((len(t), 3), np.nan)
    if action not in PROPS:
        return prop
    event = min(int(np.searchsorted(t, EVENTS[action])), len(t) - 1)
    later = np.arange(len(t)) >= event
    since = np.maximum(0, t - t[event])[later]  # seconds since release, strike or grasp
    left, right = joints[:, J["l_hand"]], joints[:, J["r_hand"]]
    if action == "throw":
        prop[:] = right + 0.03 * np.array([1.0, 0, 0.6])
        prop[later] = _ballistic(prop[event], (2.5, 0, 0.75), since)
    elif action == "kick":
        toe = joints[event, J["r_toe"]]
        prop[:] = (toe[0] + BALL_RADIUS, toe[1], BALL_RADIUS)
        prop[later] = _ballistic(prop[event], (2.4, 0, 0.85), since)
    else:  # the box lies before the feet, and comes to the hands within half a second
        hands = (left + right) / 2 + np.array([0.03, 0, 0])
        lying = np.array([hands[event, 0] + 0.03, 0.0, BOX_HALF])
        away = np.maximum(0, 1 - since / 0.5)[:, None]
        prop[:] = lying
        prop[later] = hands[later] + (lying - hands[event]) * away
    return prop


def _ballistic(start, velocity, seconds):
    """Free flight from start (3,) over a floor at which the ball bounces: (n, 3)."""
    s = seconds[:, None]
    path = start + s * np.asarray(velocity) - np.array([0, 0, 1.6]) * s**2
    path[:, 2] = BALL_RADIUS + np.abs(path[:, 2] - BALL_RADIUS)
    return path
