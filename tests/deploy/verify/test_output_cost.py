import numpy as np
import pytest

from bibench_deploy.targets._target import Execution
from bibench_deploy.verify.output_cost import measure_output_cost

OUTPUTS = np.float32([[1, 4, 2], [3, 0, -8]])
SIGNS = {"one": np.float32([[1, -1, np.nan], [1, 1, np.nan]]), "two": np.float32([[1], [-1]])}


def test_a_file_costs_nothing_against_itself() -> None:
    same = Execution(OUTPUTS, SIGNS)
    cost = measure_output_cost(same, same)
    assert cost.to_json() == {
        "inputs": 2, "max_relative_error": 0, "top1_agreement": 1, "flip_rate": 0,
    }  # fmt: skip


def test_errors_are_relative_to_the_largest_exact_output() -> None:
    moved = OUTPUTS + np.float32([[0, 0, 0], [0, 2, 0]])
    cost = measure_output_cost(Execution(OUTPUTS, SIGNS), Execution(moved, SIGNS))
    assert cost.max_relative_error == pytest.approx(0.25)
    assert cost.top1_agreement == 1


def test_another_largest_output_is_a_lost_answer() -> None:
    moved = OUTPUTS + np.float32([[0, 0, 3], [0, 0, 0]])
    cost = measure_output_cost(Execution(OUTPUTS, SIGNS), Execution(moved, SIGNS))
    assert cost.top1_agreement == 0.5


def test_flips_are_counted_among_the_signs_that_are_read() -> None:
    flipped = SIGNS | {"two": -SIGNS["two"]}
    cost = measure_output_cost(Execution(OUTPUTS, SIGNS), Execution(OUTPUTS, flipped))
    assert cost.flip_rate == pytest.approx(2 / 6)


def test_without_signs_there_is_no_flip_rate() -> None:
    plain = Execution(OUTPUTS, {})
    assert measure_output_cost(plain, plain).flip_rate is None


def test_outputs_of_zero_are_not_divided_by() -> None:
    zeros = Execution(np.zeros((2, 3), np.float32), {})
    assert measure_output_cost(zeros, zeros).max_relative_error == 0
