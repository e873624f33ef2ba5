"""Parallel work in a script without `if __name__ == "__main__"`, as in a notebook's kernel."""

import subprocess
import sys

PROGRAM = """
import sys
import numpy as np, torch
from nbkit.data.cache import build_cache
from nbkit.demo.write import write_demo
from nbkit.data.flow import compute_flow
from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve

torch.randn(400, 400) @ torch.randn(400, 400)
compute_flow(np.random.default_rng(0).integers(0, 255, (4, 96, 96, 3)).astype(np.uint8))
root = write_demo(
    sys.argv[1] + "/demo", videos_per_class={"train": 1, "val": 0, "test": 1}, workers=2
)
table = resolve(load_manifest("demo"), root, allow_partial=True)
print(len(build_cache(table, sys.argv[1] + "/cache", size=32, workers=2, progress=False)))
"""


def test_a_script_without_a_main_guard_renders_and_decodes_in_parallel(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["32"]
