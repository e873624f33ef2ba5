"""Two processes that need the same data: the second waits, says so, and goes on."""

import threading

from nbkit import files
from nbkit.data import arrays


def test_the_second_waits_says_so_and_goes_on(tmp_path, monkeypatch):
    order, told, said = [], [], threading.Event()

    def heard(text, **how):
        told.append(text)
        said.set()

    monkeypatch.setattr(files, "PATIENCE", 0.05)
    monkeypatch.setattr(files, "print", heard, raising=False)

    def second():
        with arrays.one_at_a_time(tmp_path, "demo"):
            order.append("second")

    with arrays.one_at_a_time(tmp_path, "demo"):
        thread = threading.Thread(target=second)
        thread.start()
        assert said.wait(60)  # it has given up waiting silently
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting: another process makes the data of demo" in told[0]


def test_other_data_is_no_matter(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with arrays.one_at_a_time(tmp_path, "ucf_hmdb_full"), arrays.one_at_a_time(tmp_path, "demo"):
        assert not capsys.readouterr().err
