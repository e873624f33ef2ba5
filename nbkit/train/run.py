"""One entry for both tasks: the configuration of a task, and its run."""

from __future__ import annotations

from nbkit.config import Configuration
from nbkit.config.localization import LocalizationConfig
from nbkit.config.recognition import RunConfig
from nbkit.train.store import Run

CONFIGURATIONS: dict[str, type[Configuration]] = {
    RunConfig.task: RunConfig,
    LocalizationConfig.task: LocalizationConfig,
}


def run(cfg: Configuration) -> Run:
    """Train what is missing of a run, evaluate it, and return it; a finished run is read."""
    # Here, because reading a table imports this module and must not wait for torch.
    if cfg.task == "recognition":
        from nbkit.train.recognition import run as run_recognition

        return run_recognition(cfg)
    from nbkit.train.localization import run as run_localization

    return run_localization(cfg)
