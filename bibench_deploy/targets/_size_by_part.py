"""Where the bytes of a model file go."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class SizeByPart:
    """The bytes of a model file by what they hold; together they are the whole file.

    Attributes:
        binary_weights: weights stored in one bit, without what fills up words; whole bytes.
        float_weights: every other constant, whatever its type: weights, multipliers, biases,
            thresholds, shapes.
        padding: bits that fill up the words of binary weights and hold nothing.
        metadata: the rest: operators, names, tables, and what aligns the constants.
    """

    binary_weights: int
    float_weights: int
    padding: int
    metadata: int

    @property
    def total(self) -> int:
        """Bytes of the whole file."""
        return self.binary_weights + self.float_weights + self.padding + self.metadata

    def to_json(self) -> dict[str, int]:
        """The fields by name, as the manifest keeps them, in bytes."""
        return asdict(self)
