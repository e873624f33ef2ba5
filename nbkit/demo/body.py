"""The stick body of the demo videos: its joints, its resting pose and forward kinematics.

Body frame: x forward, y to the body's left, z up; the unit is the body's height. A limb segment has
two absolute angles
in degrees: `f` swings it forward (0 hangs down, 90 points forward, 180 points up), `a` swings it
outward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

JOINTS = (
    "pelvis",
    "neck",
    "head",
    "hair",
    "l_shoulder",
    "l_elbow",
    "l_wrist",
    "l_hand",
    "r_shoulder",
    "r_elbow",
    "r_wrist",
    "r_hand",
    "l_hip",
    "l_knee",
    "l_ankle",
    "l_toe",
    "r_hip",
    "r_knee",
    "r_ankle",
    "r_toe",
)
J = {name: i for i, name in enumerate(JOINTS)}
_LIMBS = ("la", "ra", "ll", "rl")
REST = {"pitch": 0.0, "roll": 0.0, "jump": 0.0, "dx": 0.0, "dy": 0.0}
for _limb in _LIMBS:
    _arm = _limb.endswith("a")
    REST |= {
        f"{_limb}_f1": 3.0 if _arm else 0.0,
        f"{_limb}_a1": 9.0 if _arm else 4.0,
        f"{_limb}_f2": 14.0 if _arm else 0.0,
        f"{_limb}_a2": 6.0 if _arm else 3.0,
    }


@dataclass
class Build:
    """Proportions of one body: multipliers of the standard lengths."""

    legs: float = 1.0
    arms: float = 1.0
    shoulders: float = 1.0
    head: float = 1.0


def _direction(pose, limb, part, side):
    """Unit vector (T, 3) of one segment."""
    f, a = np.radians(pose[f"{limb}_f{part}"]), np.radians(pose[f"{limb}_a{part}"])
    return np.stack([np.sin(f) * np.cos(a), side * np.sin(a), -np.cos(f) * np.cos(a)], -1)


def skeleton(pose, build: Build, planted: bool) -> np.ndarray:
    """Forward kinematics: channels (T,) -> joints (T, 20, 3) standing on z = 0."""
    T = len(pose["pitch"])
    out = np.zeros((T, len(JOINTS), 3))
    pitch = np.radians(pose["pitch"])
    spine = np.stack([np.sin(pitch), 0 * pitch, np.cos(pitch)], -1)  # (T, 3)
    nod = np.stack([np.sin(0.6 * pitch), 0 * pitch, np.cos(0.6 * pitch)], -1)
    face = np.stack([nod[:, 2], 0 * pitch, -nod[:, 0]], -1)
    out[:, J["neck"]] = 0.29 * spine
    out[:, J["head"]] = out[:, J["neck"]] + (0.045 + 0.075 * build.head) * nod
    out[:, J["hair"]] = out[:, J["head"]] + 0.02 * build.head * (nod - 1.1 * face)
    for name, side in (("l", 1.0), ("r", -1.0)):
        y = np.array([0.0, side, 0.0])
        arm, leg = f"{name}a", f"{name}l"
        upper, fore = _direction(pose, arm, 1, side), _direction(pose, arm, 2, side)
        chain = [out[:, J["neck"]] - 0.025 * spine + 0.105 * build.shoulders * y]
        for vector, length in ((upper, 0.165), (fore, 0.15), (fore, 0.035)):
            chain.append(chain[-1] + build.arms * length * vector)
        out[:, J[f"{name}_shoulder"] : J[f"{name}_hand"] + 1] = np.stack(chain, 1)
        thigh, shin = _direction(pose, leg, 1, side), _direction(pose, leg, 2, side)
        sole = np.radians(0.35 * pose[f"{leg}_f2"])
        toe = np.stack([np.cos(sole), 0 * sole, np.sin(sole)], -1)
        chain = [0.052 * build.shoulders * y + np.zeros((T, 3))]
        for vector, length in (
            (thigh, 0.235 * build.legs),
            (shin, 0.225 * build.legs),
            (toe, 0.07),
        ):
            chain.append(chain[-1] + length * vector)
        out[:, J[f"{name}_hip"] : J[f"{name}_toe"] + 1] = np.stack(chain, 1)
    if planted:  # the feet stay where they are, the hips move back
        out[..., 0] -= out[:, [J["l_ankle"], J["r_ankle"]], 0].mean(1, keepdims=True)
    roll = np.radians(pose["roll"])[:, None]
    y, z = out[..., 1].copy(), out[..., 2] - 0.04
    out[..., 1], out[..., 2] = (
        y * np.cos(roll) + z * np.sin(roll),
        z * np.cos(roll) - y * np.sin(roll),
    )
    low = [J[k] for k in ("l_ankle", "r_ankle", "l_toe", "r_toe", "l_hand", "r_hand")]
    out[..., 2] += 0.028 - out[:, low, 2].min(1, keepdims=True) + pose["jump"][:, None]
    out[..., 0] += pose["dx"][:, None]
    out[..., 1] += pose["dy"][:, None]
    return out
