"""Two processes that need the same data: the second waits, says so, and goes on."""

import threading

from nbkit import files
from nbkit.data import arrays


def test_the_second_waits_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    order, started = [], threading.Event()

    def second():
        started.set()
        with arrays.one_at_a_time(tmp_path, "demo"):
            order.append("second")

    with arrays.one_at_a_time(tmp_path, "demo"):
        thread = threading.Thread(target=second)
        thread.start()
        started.wait()
        while not (told := capsys.readouterr().err):  # it has given up waiting silently
            assert thread.is_alive()
        order.append("first")
    thread.join()
    assert (
        order == ["first", "second"] and "waiting: another process makes the data of demo" in told
    )


def test_other_data_is_no_matter(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with arrays.one_at_a_time(tmp_path, "ucf_hmdb_full"), arrays.one_at_a_time(tmp_path, "demo"):
        assert not capsys.readouterr().err
