"""The stick body of the demo videos: its joints, its resting pose and forward kinematics.

Body frame: x forward, y to the body's left, z up; the unit is the body's height.  A segment of a
limb has two absolute angles in degrees: `f` swings it forward (0 hangs down, 90 points forward,
180 points up), `a` swings it outward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

JOINTS = (
    "pelvis neck head hair "
    "l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist r_hand "
    "l_hip l_knee l_ankle l_toe r_hip r_knee r_ankle r_toe"
).split()
J = {name: i for i, name in enumerate(JOINTS)}
TOUCHING = [J[name] for name in ("l_ankle", "r_ankle", "l_toe", "r_toe", "l_hand", "r_hand")]

# A pose gives each channel a value: limb channels are side + a(rm) or l(eg) + angle + segment.
_ARM_AT_REST = {"f1": 3.0, "a1": 9.0, "f2": 14.0, "a2": 6.0}
_LEG_AT_REST = {"f1": 0.0, "a1": 4.0, "f2": 0.0, "a2": 3.0}
REST = {"pitch": 0.0, "roll": 0.0, "jump": 0.0, "dx": 0.0, "dy": 0.0}
for _side in "lr":
    REST |= {f"{_side}a_{angle}": value for angle, value in _ARM_AT_REST.items()}
    REST |= {f"{_side}l_{angle}": value for angle, value in _LEG_AT_REST.items()}


@dataclass
class Build:
    """Proportions of one body: multipliers of the standard lengths."""

    legs: float = 1.0
    arms: float = 1.0
    shoulders: float = 1.0
    head: float = 1.0


def skeleton(pose: dict[str, np.ndarray], build: Build, planted: bool) -> np.ndarray:
    """Forward kinematics: channels (T,) -> joints (T, 20, 3) standing on z = 0.

    planted: the feet keep their place, and the hips move back instead.
    """
    joints = np.zeros((len(pose["pitch"]), len(JOINTS), 3))
    pitch = np.radians(pose["pitch"])
    spine = _sideways_zero(np.sin(pitch), np.cos(pitch))  # (T, 3)
    nod = _sideways_zero(np.sin(0.6 * pitch), np.cos(0.6 * pitch))
    face = _sideways_zero(nod[:, 2], -nod[:, 0])
    neck = 0.29 * spine
    head = neck + (0.045 + 0.075 * build.head) * nod
    joints[:, J["neck"]] = neck
    joints[:, J["head"]] = head
    joints[:, J["hair"]] = head + 0.02 * build.head * (nod - 1.1 * face)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        left = np.array([0.0, sign, 0.0])
        shoulder = neck - 0.025 * spine + 0.105 * build.shoulders * left
        hip = 0.052 * build.shoulders * left + np.zeros_like(spine)
        arm = slice(J[f"{side}_shoulder"], J[f"{side}_hand"] + 1)
        leg = slice(J[f"{side}_hip"], J[f"{side}_toe"] + 1)
        joints[:, arm] = _arm(pose, f"{side}a", sign, shoulder, build)
        joints[:, leg] = _leg(pose, f"{side}l", sign, hip, build)
    if planted:
        feet = joints[:, [J["l_ankle"], J["r_ankle"]], 0]  # (T, 2)
        joints[..., 0] -= feet.mean(1, keepdims=True)
    return _stand(joints, pose)


def _sideways_zero(forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Vectors (T, 3) in the plane that halves the body."""
    return np.stack([forward, 0 * forward, up], -1)


def _direction(pose, limb, segment, sign):
    """Unit vector (T, 3) of one segment."""
    forward = np.radians(pose[f"{limb}_f{segment}"])
    outward = np.radians(pose[f"{limb}_a{segment}"])
    x = np.sin(forward) * np.cos(outward)
    y = sign * np.sin(outward)
    z = -np.cos(forward) * np.cos(outward)
    return np.stack([x, y, z], -1)


def _arm(pose, limb, sign, shoulder, build):
    """Shoulder, elbow, wrist and hand (T, 4, 3)."""
    fore = _direction(pose, limb, 2, sign)
    elbow = shoulder + build.arms * 0.165 * _direction(pose, limb, 1, sign)
    wrist = elbow + build.arms * 0.15 * fore
    hand = wrist + build.arms * 0.035 * fore
    return np.stack([shoulder, elbow, wrist, hand], 1)


def _leg(pose, limb, sign, hip, build):
    """Hip, knee, ankle and toe (T, 4, 3)."""
    knee = hip + 0.235 * build.legs * _direction(pose, limb, 1, sign)
    ankle = knee + 0.225 * build.legs * _direction(pose, limb, 2, sign)
    sole = np.radians(0.35 * pose[f"{limb}_f2"])
    toe = ankle + 0.07 * _sideways_zero(np.cos(sole), np.sin(sole))
    return np.stack([hip, knee, ankle, toe], 1)


def _stand(joints, pose):
    """Roll the body sideways, put its lowest point on the floor, move it: (T, 20, 3)."""
    roll = np.radians(pose["roll"])[:, None]
    y = joints[..., 1].copy()
    z = joints[..., 2] - 0.04
    joints[..., 1] = y * np.cos(roll) + z * np.sin(roll)
    joints[..., 2] = z * np.cos(roll) - y * np.sin(roll)
    lowest = joints[:, TOUCHING, 2].min(1, keepdims=True)
    joints[..., 2] += 0.028 - lowest + pose["jump"][:, None]
    joints[..., 0] += pose["dx"][:, None]
    joints[..., 1] += pose["dy"][:, None]
    return joints
