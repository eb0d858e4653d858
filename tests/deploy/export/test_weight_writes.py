import pytest
import torch
from torch import nn

from bibench_deploy.export.weight_writes import run_and_watch

X = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.other = nn.Conv2d(3, 3, 1)
        self.conv = nn.Conv2d(3, 4, 1, bias=False)


class Replaces(Layer):
    def forward(self, x):
        self.conv.weight.data = torch.sign(self.conv.weight.data)
        return self.conv(x)


class Restores(Layer):
    def forward(self, x):
        kept = self.conv.weight.data
        self.conv.weight.data = torch.sign(kept)
        output = self.conv(x)
        self.conv.weight.data = kept
        return output


class Copies(Layer):
    def forward(self, x):
        self.conv.weight.data.copy_(torch.sign(self.conv.weight.data))
        return self.conv(x)


class Clamps(Layer):
    def forward(self, x):
        with torch.no_grad():
            self.conv.weight.clamp_(-1, 1)
        return self.conv(x)


class WritesElsewhere(Layer):
    """To its input, to a buffer, and to what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        x.mul_(2)
        weight = torch.where(self.conv.weight >= 0, 1.0, -1.0)
        return nn.functional.conv2d(self.other(x).relu_(), weight)


@pytest.mark.parametrize("kind", [Replaces, Restores, Copies, Clamps])
def test_a_weight_that_is_written_to_is_named_however_it_is_done(kind) -> None:
    module = kind().eval()
    for _ in range(2):  # the second time nothing changes any more
        with torch.no_grad():
            _, written = run_and_watch(module, X)
        assert written == ("conv.weight",)


def test_other_writes_are_the_modules_own_affair() -> None:
    before = X.clone()
    module = WritesElsewhere().eval()
    with torch.no_grad():
        output, written = run_and_watch(module, X)
        assert written == ()
        torch.testing.assert_close(output, module(X.clone()))
    torch.testing.assert_close(X, before, rtol=0, atol=0)


def test_batch_norm_in_eval_mode_writes_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    assert run_and_watch(module, X)[1] == ()
