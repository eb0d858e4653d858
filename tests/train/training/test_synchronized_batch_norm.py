from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bibench_train.training.synchronized_batch_norm import SynchronizedBatchNorm


@pytest.fixture(autouse=True)
def group_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("is_affine", [True, False])
def test_alone_it_is_an_ordinary_batch_norm(
    dtype: torch.dtype, momentum: float | None, is_affine: bool
) -> None:
    torch.manual_seed(0)
    # Parameters and statistics stay in 32 bits where inputs have 16, as under autocast.
    wide = torch.promote_types(dtype, torch.float32)
    plain = nn.BatchNorm2d(3, momentum=momentum, affine=is_affine, dtype=wide)
    ours = nn.BatchNorm2d(3, momentum=momentum, affine=is_affine, dtype=wide)
    ours.load_state_dict(plain.state_dict())
    SynchronizedBatchNorm.convert(ours)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for _ in range(3):
        x = (torch.randn(6, 3, 4, 5) * 3 + 7).to(dtype)
        seen = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [layer(each) for layer, each in zip((plain, ours), seen, strict=True)]
        assert outputs[0].dtype == outputs[1].dtype
        upstream = torch.randn_like(x)
        for output in outputs:
            output.backward(upstream)
        torch.testing.assert_close(outputs[1], outputs[0], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(seen[1].grad, seen[0].grad, rtol=tolerance, atol=tolerance)
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(
            ours.state_dict()[name], expected, rtol=1e-4, atol=1e-5, msg=name
        )
    assert torch.equal(ours.eval()(x), nn.BatchNorm2d.forward(ours, x))


def test_what_is_no_batch_of_channels_is_refused() -> None:
    layer = nn.BatchNorm2d(3)
    SynchronizedBatchNorm.convert(layer)
    with pytest.raises(ValueError, match=r"batch norm needs \[N, C, \.\.\.\], got \[3\]"):
        layer.eval()(torch.zeros(3))
