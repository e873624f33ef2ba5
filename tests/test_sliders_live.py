"""Sliders in JupyterLab and a headless Chromium: each is moved by keys, and the figure changes.

The notebook of the first test is made here. The suite's own notebooks take minutes before their
sliders appear, so they are driven on request: NBKIT_SLIDERS="04 08" or NBKIT_SLIDERS=all.
"""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import nbformat
import pytest
from tornado.websocket import websocket_connect

from nbkit.config import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ASKED = os.environ.get("NBKIT_SLIDERS", "").split()
NOTEBOOKS = {
    path.stem: len(re.findall(r'"\s*(?:stepper|show\.clip_viewer)\(', path.read_text()))
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
}
TOY = """\
import matplotlib.pyplot as plt
from nbkit.figures.notebook import stepper

def draw(value):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, value])
    ax.set_title(str(value))
    return fig

stepper(draw, [1, 2, 3, 4], "step", start=1)
"""
SLIDERS = "[...document.querySelectorAll('.jp-Notebook .noUi-handle')]"
PICTURE = SLIDERS + "[{}].closest('.widget-vbox').querySelector('img')?.src.length + '|' + "
PICTURE += SLIDERS + "[{}].closest('.widget-vbox').querySelector('img')?.src.slice(-4000)"
READOUT = SLIDERS + "[{}].closest('.widget-slider').querySelector('.widget-readout').textContent"
ACCEPT = "document.querySelector('.jp-Dialog .jp-mod-accept')?.click()"
OPENED = "[...window.jupyterapp.shell.widgets('main')].find(w => w.sessionContext)"
STATUS = OPENED + "?.sessionContext.session?.kernel?.status"
ERRORS = "[...document.querySelectorAll('.jp-RenderedText[data-mime-type*=stderr]')]"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def process(*command, **how):
    """A process for the block; it alone is ended, with the kernels that it started."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(list(map(str, command)), **quiet, **how)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()


def answer(url, patience=90):
    """What an address says, once it says something."""
    until = time.monotonic() + patience
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


class Page:
    """A tab of the browser, over its debugging protocol."""

    def __init__(self, connection):
        self.connection, self.number = connection, 0

    async def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        await self.connection.write_message(json.dumps(message))
        while True:
            found = json.loads(await self.connection.read_message())
            if found.get("id") == self.number:
                return found["result"]

    async def value(self, expression):
        found = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        return found["result"].get("value")

    async def until(self, expression, seconds):
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while not (found := await self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression[:200]}"
            await asyncio.sleep(0.5)
        return found

    async def press(self, key):
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)


async def drive(server, browser, name, sliders, seconds):
    """Run all cells of a notebook, then move each slider to both ends, a step per key."""
    tabs = json.loads(answer(f"http://127.0.0.1:{browser}/json"))
    address = next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"]
    page = Page(await websocket_connect(address, max_message_size=1 << 28))
    lab = f"http://127.0.0.1:{server}/lab/tree/{name}?token=test"
    await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    await page.call("Page.navigate", url=lab)
    await page.until("!!window.jupyterapp && !!document.querySelector('.jp-Notebook')", 90)
    # The first kernel is asked for in a dialog.
    await page.until(f"({ACCEPT}, {STATUS} === 'idle')", 90)
    await page.value(f"window.jupyterapp.shell.activateById({OPENED}.id)")
    await page.value("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    await page.until(f"{SLIDERS}.length === {sliders}", seconds)
    for i in range(sliders):
        await page.until(f"!!{PICTURE.replace('{}', str(i))}", 60)
        seen = {}
        for key in ["ArrowLeft"] * 9 + ["ArrowRight"] * 9:
            before = await page.value(READOUT.format(i))
            await page.value(f"{SLIDERS}[{i}].focus()")
            await page.press(key)
            if await page.value(READOUT.format(i)) == before:
                continue  # at the end
            old = seen.get(before)
            await page.until(f"({PICTURE.replace('{}', str(i))}) !== {json.dumps(old)}", 120)
            await asyncio.sleep(1.0)
            seen[await page.value(READOUT.format(i))] = await page.value(
                PICTURE.replace("{}", str(i))
            )
        assert len(seen) > 1 and len(set(seen.values())) == len(seen), f"slider {i}: {list(seen)}"
    assert not await page.value(f"{ERRORS}.some(e => e.textContent.includes('Traceback'))")


def driven(folder, name, sliders, seconds):
    server, browser = free_port(), free_port()
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # Without it cells out of sight would not be in the page.
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    places = {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "PYTHONPATH": str(ROOT),
    }
    lab = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    lab += [f"--port={server}", "--IdentityProvider.token=test", f"--ServerApp.root_dir={folder}"]
    lab += ["--expose-app-in-browser"]
    window = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "about:blank"]
    window += [f"--remote-debugging-port={browser}", f"--user-data-dir={folder / 'browser'}"]
    window += ["--window-size=1400,1000", "--disable-dev-shm-usage"]
    with process(*lab, env={**os.environ, **places}), process(*window):
        answer(f"http://127.0.0.1:{server}/api")
        answer(f"http://127.0.0.1:{browser}/json/version")
        asyncio.run(drive(server, browser, name, sliders, seconds))


def test_a_slider_redraws_its_figure_in_a_browser(tmp_path):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TOY)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    nbformat.write(made, tmp_path / "toy.ipynb")
    driven(tmp_path, "toy.ipynb", 1, 120)


@pytest.mark.parametrize("stem", [stem for stem, sliders in NOTEBOOKS.items() if sliders])
def test_the_sliders_of_a_notebook_redraw_their_figures(stem, tmp_path):
    if stem[:2] not in ASKED and "all" not in ASKED:
        pytest.skip("minutes before its sliders appear: NBKIT_SLIDERS=all")
    for path in (ROOT / "notebooks").glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copy(ROOT / "notebooks" / f"{stem}.ipynb", tmp_path)
    driven(tmp_path, f"{stem}.ipynb", NOTEBOOKS[stem], 1500)
