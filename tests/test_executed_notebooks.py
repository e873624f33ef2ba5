"""Whatever ends a notebook, what was executed of it stays, and the message is one line of ours."""

import nbformat
import pytest

import nbkit.tables.batch as batch
from nbkit.errors import NbkitError

ENDS = {
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "DeadKernelError"),
    "out of memory": ("import os; os._exit(137)", "DeadKernelError"),
    "an error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "ours": (
        "from nbkit.errors import NbkitError; raise NbkitError('move the file away')",
        "NbkitError: move the file away",
    ),
    "stopped": ("import sys; sys.exit(3)", "SystemExit"),
    "a person": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
}


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """`notebook(*cells)`: write `notebooks/one.ipynb`, the first cell being its parameters."""
    monkeypatch.setattr(batch, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()

    def write(*cells):
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        made.cells[0].metadata["tags"] = ["parameters"]
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(made, tmp_path / "notebooks" / "one.ipynb")

    return write


@pytest.mark.parametrize("end", ENDS)
def test_what_was_executed_stays(end, notebook, tmp_path):
    code, words = ENDS[end]
    notebook("SEED = 0", "print('here')", code, "print('never')")
    output = tmp_path / "a folder" / "one.ipynb"
    with pytest.raises(NbkitError, match=f"(?s)one.failed.ipynb.*{words}") as caught:
        batch.execute("one", output, {"SEED": 3})
    assert len(str(caught.value).splitlines()) <= 3
    left = nbformat.read(tmp_path / "a folder" / "one.failed.ipynb", as_version=4)
    printed = [
        o.text for c in left.cells for o in c.get("outputs", ()) if o.output_type == "stream"
    ]
    assert "here\n" in printed and "never\n" not in printed
    assert not output.exists() and not list((tmp_path / "a folder").glob("*.running.*"))
    notebook("SEED = 0", "print(SEED)")
    batch.execute("one", output, {"SEED": 3})
    assert output.exists() and not (tmp_path / "a folder" / "one.failed.ipynb").exists()


def test_our_error_is_one_line_in_a_notebook(notebook, tmp_path):
    notebook(
        "SEED = 0", "from nbkit.config.recognition import RunConfig", "RunConfig.make(seed=-1)"
    )
    with pytest.raises(NbkitError, match="SEED: Input should be greater"):
        batch.execute("one", tmp_path / "one.ipynb", {})
    left = nbformat.read(tmp_path / "one.failed.ipynb", as_version=4)
    (error,) = [o for c in left.cells for o in c.get("outputs", ()) if o.output_type == "error"]
    assert error.ename == "NbkitError" and "\n".join(error.traceback).count("\n") <= 2


@pytest.mark.parametrize("name", ["alpha", "Seed", "SED", "seed"])
def test_a_parameter_that_the_notebook_does_not_have_is_refused(name, notebook, tmp_path):
    notebook("SEED = 0")
    with pytest.raises(NbkitError, match=f"has no parameter {name}"):
        batch.execute("one", tmp_path / "one.ipynb", {name: 3})


def test_a_kernel_that_is_not_there_and_a_place_that_cannot_be_written(
    notebook, tmp_path, monkeypatch
):
    notebook("SEED = 0")
    (tmp_path / "file").write_text("")
    with pytest.raises(NbkitError, match="a file is where a folder should be"):
        batch.execute("one", tmp_path / "file" / "one.ipynb", {})
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr(
        "jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", _no_such_kernel
    )
    with pytest.raises(NbkitError, match="(?s)one failed.*NoSuchKernel"):
        batch.execute("one", tmp_path / "one.ipynb", {})


def _no_such_kernel(_, name):
    from jupyter_client.kernelspec import NoSuchKernel

    raise NoSuchKernel(name)
