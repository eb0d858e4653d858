import os
import signal
import threading

import pytest

from bibench_deploy.cli._terminal import ending_on_terminate, printable


def test_letters_of_any_language_and_line_ends_are_printed() -> None:
    assert printable("größe 大きさ\n−1 … ok\n") == "größe 大きさ\n−1 … ok\n"


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\r", "\x00", "\x9b", "\u202e"])
def test_what_steers_a_terminal_is_not_printed(letter) -> None:
    assert printable(f"a{letter}b") == "a?b"


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def ending(request):
    """A signal that ends a command, not ignored, as in a terminal."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_to_end_interrupts_and_the_old_handler_comes_back(ending) -> None:
    with pytest.raises(KeyboardInterrupt), ending_on_terminate():
        os.kill(os.getpid(), ending)
    assert signal.getsignal(ending) is signal.SIG_DFL


def test_under_nohup_a_closed_terminal_ends_nothing(ending) -> None:
    signal.signal(ending, signal.SIG_IGN)
    with ending_on_terminate():
        os.kill(os.getpid(), ending)
    assert signal.getsignal(ending) is signal.SIG_IGN


def test_in_another_thread_handlers_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with ending_on_terminate():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
