import numpy as np
import torch
from torch import nn

from bibench_deploy.export.reference import answer, observe_module
from bibench_train.harden import harden

INPUTS = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)


def test_outputs_are_the_modules_own(make_network) -> None:
    module = harden(make_network())
    with torch.no_grad():
        expected = module(torch.from_numpy(INPUTS)).numpy()
    np.testing.assert_allclose(observe_module(module, INPUTS).outputs, expected, atol=1e-6)


def test_the_signs_are_those_that_each_layer_reads_its_shift_included(make_network) -> None:
    module = harden(make_network("reactnet"))
    observed = observe_module(module, INPUTS)
    assert [signs.shape for signs in observed.signs] == [
        (3, 8, 8, 8), (3, 16, 4, 4), (3, 8, 8, 8), (3, 16),
    ]  # fmt: skip
    with torch.no_grad():
        first = module.stem(torch.from_numpy(INPUTS)) + module.block.conv1.shift
    np.testing.assert_array_equal(observed.signs[0], np.where(first.numpy() >= 0, 1, -1))
    assert (module.block.conv1.shift != 0).any()


def test_exactly_zero_counts_as_plus_one(make_network) -> None:
    module = harden(make_network("bnn")).hidden
    observed = observe_module(module, np.zeros((1, 16), np.float32))
    assert set(observed.signs[0].ravel()) == {1}


def test_a_module_without_binary_layers_shows_no_signs() -> None:
    assert observe_module(nn.ReLU(), INPUTS).signs == ()


def test_no_hook_is_left_behind(make_network) -> None:
    module = harden(make_network())
    observe_module(module, INPUTS)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_answers_are_the_largest_outputs_of_any_number_of_images() -> None:
    images = np.random.default_rng(1).standard_normal((131, 5)).astype(np.float32)
    answers = answer(nn.Identity(), images)
    assert answers.dtype == np.int64
    np.testing.assert_array_equal(answers, images.argmax(axis=1))
