"""Optional real data for the tests: the folder in NBKIT_REAL_DATA, or `shared/real` beside the
repository.
"""

import os
from pathlib import Path

import pytest


def real_path(*parts: str) -> Path:
    """The path of a file or folder of the real data, or a skipped test when it is absent."""
    root = Path(os.environ.get("NBKIT_REAL_DATA") or Path(__file__).parents[2] / "shared" / "real")
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"no real data at {path}; set NBKIT_REAL_DATA to a folder that has {'/'.join(parts)}"
        )
    return path
