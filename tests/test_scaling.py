"""More than one GPU or machine: profiles for existing engines, several workers on one folder."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig
from nbkit.tables.table import load_table

PROFILES = {"gpus": None, "slurm": "slurm", "kubernetes": "kubernetes"}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_places_the_runs_of_a_table(name, tmp_path):
    plugin = PROFILES[name]
    if plugin and not importlib.util.find_spec(f"snakemake_executor_plugin_{plugin}"):
        pytest.skip(f"snakemake-executor-plugin-{plugin} is not installed")
    words = ["-m", "snakemake", "-n", "--profile", f"profiles/{name}", "table5", "-p"]
    words += ["--config", f"runs_dir={tmp_path}", *(["gpus=4"] if name == "gpus" else [])]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert shown.count("nbkit.cli run table") == len(
        {cell.key for cell in load_table("table5").cells()}
    )
    profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    resources = profile["default-resources"]
    assert resources == ["gpu=1"] if name == "gpus" else resources["gpu"] == 1
    assert ("profiles/gpus/on_a_gpu 4 " in shown) == (name == "gpus")


def test_every_run_gets_a_gpu_of_its_own(tmp_path):
    """Four runs on two GPUs: no GPU has two at a time, and a killed run's GPU is free again."""
    script = tmp_path / "run.sh"
    script.write_text('echo "$CUDA_VISIBLE_DEVICES"; exec sleep "$1"\n')
    place = [str(ROOT / "profiles/gpus/on_a_gpu"), "2", "bash", str(script)]
    mine = {**os.environ, "TMPDIR": str(tmp_path)}

    def start(seconds):
        return subprocess.Popen([*place, seconds], env=mine, stdout=subprocess.PIPE, text=True)

    first, second = start("60"), start("60")
    held = [first.stdout.readline().strip(), second.stdout.readline().strip()]
    assert sorted(held) == ["0", "1"]
    third = start("0")
    time.sleep(0.5)
    assert third.poll() is None  # both are taken
    first.send_signal(signal.SIGKILL)
    assert third.communicate(timeout=120)[0].strip() == held[0]
    second.kill()


def test_papers_values_for_a_bare_machine_are_the_profiles():
    """benchmarks/gpu.py runs where pydantic is not installed."""
    stored = json.loads((ROOT / "benchmarks/paper.json").read_text())
    assert stored.pop("watch") == {"progress": False}
    cfg = RunConfig.make(profile="paper").model_dump(mode="json", exclude={"watch"})
    assert stored == cfg


def test_a_killed_worker_costs_nothing_but_time(smoke, tmp_path):
    """Three workers share a folder, one is killed in the middle: the runs equal those of one."""
    cfg = smoke(runs_dir=str(tmp_path / "alone"))
    program = tmp_path / "worker.py"
    program.write_text(
        "import sys\n"
        "from nbkit.config.recognition import RunConfig\n"
        "from nbkit.train.recognition import run\n"
        "from nbkit.train.store import find_run\n"
        "data, runs = sys.argv[1:3]\n"
        "for method in ('source_only', 'adabn', 'mmd', 'stcda'):\n"
        "    cfg = RunConfig.make(profile='smoke', method=method, data_root=data, runs_dir=runs)\n"
        "    print('begins', flush=True)\n"
        "    found = run(cfg)\n"
    )

    def start(runs):
        words = [sys.executable, str(program), cfg.watch.data_root, str(tmp_path / runs)]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    workers = [start("shared") for _ in range(3)]
    while not list((tmp_path / "shared").glob("stages/*.pt")):
        time.sleep(0.05)
        assert all(worker.poll() is None for worker in workers)
    workers[0].kill()  # while it trains or waits for one that does
    for worker in workers[1:]:
        worker.communicate(timeout=900)
        assert worker.returncode == 0
    alone = start("alone")
    alone.communicate(timeout=900)
    assert alone.returncode == 0
    found = {
        runs: {p.parent.name: p.read_text() for p in (tmp_path / runs).glob("*/predictions.csv")}
        for runs in ("shared", "alone")
    }
    assert len(found["alone"]) == 4 and found["shared"] == found["alone"]


def test_the_gpu_script_needs_torch_and_numpy_alone():
    """It takes a step of stage 3 where nothing else that the package asks for is installed."""
    program = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "hidden = {'pydantic', 'cv2', 'pandas', 'lightning_fabric', 'tqdm', 'filelock', 'yaml'}\n"
        "class Hide:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.split('.')[0] in hidden:\n"
        "            return None\n"
        "        return PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path = [Hide if f is PathFinder else f for f in sys.meta_path]\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "import gpu\n"
        "small = dict(crop=32, cache_size=36, frames=2, batch=6, nce_k=4, cas_classes=3)\n"
        "small['cas_per_class'] = 1\n"
        "bench = gpu.Bench('cpu', 9)\n"
        "found = gpu.epochs(bench, 'bn_inception', (3,), 9, '32-true', 3, small)\n"
        "print(sorted(found['stage 3']['terms']))\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == "['ce', 'contrast', 'inter', 'intra', 'vca']".split()
