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


def test_sigterm_interrupts_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ending_on_terminate():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


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
