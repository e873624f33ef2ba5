"""The site's pages are those of the project, and its settings fetch nothing from elsewhere."""

import re
import runpy

from nbkit.config import ROOT

SITE = ROOT / "site"


def test_every_notebook_and_every_page_is_in_the_contents():
    text = (SITE / "index.md").read_text()
    patterns = re.findall(r"^\.\./(\S+)$", text, re.M)
    listed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert {*(ROOT / "notebooks").glob("[0-9]*.ipynb")} <= listed
    assert {*(ROOT / "docs").glob("*.md")} <= listed


def test_the_settings_execute_nothing_and_name_no_address():
    settings = runpy.run_path(str(SITE / "conf.py"))
    assert settings["nb_execution_mode"] == "off" and settings["nb_ipywidgets_js"] == {}
    assert "sphinx-mathjax-offline" in settings["extensions"]
    for path in SITE.rglob("*.*"):
        assert "://" not in path.read_text(), path


def test_the_target_uses_an_environment_of_its_own():
    makefile = (ROOT / "Makefile").read_text()
    assert "-c site . .site/html" in makefile
    lines = (SITE / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", line) for line in wanted)
    names = {line.split("==")[0] for line in wanted}
    assert {"myst-nb", "sphinx", "furo"} <= names
