"""A hang leaves the stacks of all threads; whatever else happens, the training goes on."""

import ctypes
import logging
import re
import sys
import threading
import time

import pytest

from mhcnb.training.watchdog import Watchdog

TIMEOUT = 0.5


def a_place_to_hang(seconds):
    time.sleep(seconds)


def another_place(event):
    event.wait()


def test_a_hang_leaves_the_step_and_the_stacks_of_all_threads(tmp_path):
    event = threading.Event()
    other = threading.Thread(target=another_place, args=(event,))
    other.start()
    with Watchdog(tmp_path / "logs", 3, TIMEOUT) as watchdog:
        watchdog.beat(17)
        a_place_to_hang(2 * TIMEOUT)
        watchdog.beat(18)  # it was no hang after all
    event.set()
    other.join()
    text = (tmp_path / "logs" / "rank3.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d .* rank 3: nothing has ended for 0\.\d+ s since step 17;", text, re.MULTILINE)
    assert text.count("nothing has ended") == 1
    assert "in a_place_to_hang" in text
    assert "in another_place" in text


@pytest.mark.skipif(sys.platform == "win32", reason="needs usleep")
def test_a_hang_that_holds_the_interpreter_shows_too(tmp_path):
    hold = ctypes.PyDLL(None).usleep  # PyDLL does not let other threads run meanwhile
    with Watchdog(tmp_path, 0, TIMEOUT):  # before any step, too
        hold(int(1.2e6 * TIMEOUT))
    assert "in test_a_hang_that_holds_the_interpreter" in (tmp_path / "rank0.log").read_text()


def test_steps_in_time_leave_nothing(tmp_path):
    with Watchdog(tmp_path, 0, TIMEOUT) as watchdog:
        for step in range(10):
            watchdog.beat(step)
            time.sleep(TIMEOUT / 10)
    time.sleep(0.9 * TIMEOUT)
    assert (tmp_path / "rank0.log").read_text() == ""


def test_warnings_go_into_the_log_while_it_is_open(tmp_path):
    folder = tmp_path / "not there yet"
    watchdog = Watchdog(folder, 1, 300.0)
    assert not folder.exists()
    handlers = list(logging.getLogger().handlers)
    with watchdog:
        logging.getLogger("mhcnb.anything").warning("remember this")
    logging.getLogger("mhcnb.anything").warning("not this")
    assert logging.getLogger().handlers == handlers
    text = (folder / "rank1.log").read_text()
    assert "WARNING mhcnb.anything: remember this" in text
    assert "not this" not in text


def test_the_error_that_ends_a_rank_is_in_its_log_alone(tmp_path, caplog):
    def train():
        with Watchdog(tmp_path, 2, 300.0) as watchdog:
            watchdog.beat(12)
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        train()
    text = (tmp_path / "rank2.log").read_text()
    assert "ERROR mhcnb.training.watchdog: after step 12\nTraceback" in text
    assert "ZeroDivisionError: division by zero" in text
    assert caplog.text == ""  # whoever catches it says it


@pytest.mark.parametrize("end", [KeyboardInterrupt, GeneratorExit])
def test_an_end_that_was_asked_for_is_no_error(tmp_path, end):
    with pytest.raises(end), Watchdog(tmp_path, 0, 300.0):
        raise end
    assert (tmp_path / "rank0.log").read_text() == ""


def test_a_second_attempt_adds_to_the_log(tmp_path):
    for attempt in ("first", "second"):
        with Watchdog(tmp_path, 0, 300.0):
            logging.getLogger("mhcnb").warning(attempt)
    assert [line.split(": ")[-1] for line in (tmp_path / "rank0.log").read_text().splitlines()] == ["first", "second"]


def test_without_a_place_for_the_log_the_training_goes_on(tmp_path, caplog):
    (tmp_path / "logs").write_text("a file is no folder")
    with Watchdog(tmp_path / "logs", 0, 300.0) as watchdog:
        watchdog.beat(1)
    assert "no log of this process" in caplog.text
