"""`nbkit doctor` says on one screen what is wrong and what to do, on a broken installation, too."""

import sys

import pytest

from nbkit.cli import main
from tools import doctor


def line_of(lines, name):
    return next(line for line in lines if line[0] == name)


def test_this_installation_fits_one_screen(capfd):
    code = main(["doctor"])
    shown = capfd.readouterr().out.splitlines()
    assert code in (0, 1) and len(shown) <= 24 and all(len(line) < 160 for line in shown)
    said = "\n".join(shown)
    for name in ("Python", "packages", "OpenCV", "kernel", "GPU", "threads", "data", "runs"):
        assert name in said
    assert ("nothing to mend" in said) == (code == 0)


def test_two_opencv_packages_and_other_versions_are_named(monkeypatch):
    real = doctor._version
    odd = {"opencv-python": "5.0.0.1", "numpy": "1.0", "papermill": None}
    monkeypatch.setattr(doctor, "_version", lambda name: odd.get(name, real(name)))
    lines = doctor.examine()
    _, found, remedy = line_of(lines, "OpenCV")
    assert "opencv-python 5.0.0.1" in found and "pip uninstall -y opencv-python " in remedy
    _, found, remedy = line_of(lines, "")
    assert "numpy 1.0" in found and "papermill absent" in found and "make setup" in remedy
    assert "2 to mend" in doctor.report(lines)


def test_a_package_of_another_system_is_not_missed(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "pywinpty" else real(n))
    assert "pywinpty" not in doctor.report(doctor.examine())


def test_a_package_that_cannot_be_imported_is_a_line_and_no_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    lines = doctor.examine()
    assert "ModuleNotFoundError" in line_of(lines, "gpu")[1]
    assert "cannot be imported" in line_of(lines, "OpenCV")[2]


def test_an_old_python_a_full_disk_and_a_file_in_the_way_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "LEAST_PYTHON", (9, 0))
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e9)
    (tmp_path / "runs").write_text("")
    lines = doctor.examine(tmp_path / "data", tmp_path / "runs" / "x")
    assert line_of(lines, "Python")[2] and "GB" in line_of(lines, "data")[2]
    assert "cannot be written" in line_of(lines, "runs")[2]


@pytest.mark.parametrize("kernel", ["/usr/bin/python3", "python"])
def test_a_kernel_of_another_python_is_named(monkeypatch, kernel):
    from jupyter_client.kernelspec import KernelSpecManager

    spec = type("Spec", (), {"argv": [kernel]})
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: spec)
    assert bool(line_of(doctor.examine(), "kernel")[2]) == (kernel != "python")
