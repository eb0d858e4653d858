"""A number with its noun: "1 layer", "2 layers"."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """How many of something there are, in words.

    Args:
        number: how many.
        noun: of one.
        plural: of several, where an s does not make it.

    Example:
        >>> counted(1, "pass", "passes"), counted(0, "error"), counted(1234, "number")
        ('1 pass', '0 errors', '1,234 numbers')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
