import torch

from bibench_train.ops.scale import mean_magnitude


def test_each_output_channel_has_the_mean_magnitude_of_its_own_weights() -> None:
    weight = torch.stack([torch.full((2, 3, 3), -0.5), torch.full((2, 3, 3), 2.0)])
    assert mean_magnitude(weight).tolist() == [0.5, 2.0]


def test_it_is_the_best_single_factor_for_the_signs() -> None:
    weight = torch.randn(1, 50, dtype=torch.float64)
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    best = torch.linalg.lstsq(signs.T, weight.T).solution.item()
    torch.testing.assert_close(mean_magnitude(weight).item(), best)


def test_no_gradient_reaches_the_weights() -> None:
    assert not mean_magnitude(torch.randn(2, 3, requires_grad=True)).requires_grad
