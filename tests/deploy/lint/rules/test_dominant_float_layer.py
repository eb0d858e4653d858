import numpy as np

from bibench_deploy.lint.finding import Severity

NODES = """[stem] a = Conv(x, f)  s = Sign(a)  [binary] c = Conv(s, b)
    p = GlobalAveragePool(c)  h = Flatten(p)  [head] y = Gemm(h, fc)"""


def arrays(classes: int, channels: int):
    generator = np.random.default_rng(0)
    return {
        "f": generator.standard_normal((8, 4, 1, 1)),
        "b": np.where(generator.standard_normal((channels, 8, 3, 3)) >= 0, 1.0, -1.0),
        "fc": generator.standard_normal((channels, classes)),
    }


def test_a_float_layer_of_most_of_the_storage_and_one_of_most_of_the_work(findings_of) -> None:
    stem, head = findings_of(NODES, "dominant-float-layer", **arrays(10, 16))
    assert {(item.code, item.severity) for item in (stem, head)} == {("BIB405", Severity.INFO)}
    # 32 · 64 multiplications of the stem, 1152 · 36 / 64 of the binary layer, 160 of the head.
    assert stem.layer == "stem"
    assert stem.message.startswith(f"this float layer is {2048 / (2048 + 648 + 160):.0%} of the")
    # 128 + 144 + 640 bytes.
    assert head.layer == "head"
    assert head.message.startswith(f"this float layer is {640 / (128 + 144 + 640):.0%} of the")


def test_small_float_layers_are_clean(findings_of) -> None:
    nodes = NODES.replace("[stem] a = Conv(x, f)", "a = Neg(x)").replace("fc)", "fc)")
    small = arrays(1, 64) | {"b": np.where(np.ones((64, 4, 3, 3)) > 0, 1.0, -1.0)}
    small["fc"] = np.random.default_rng(0).standard_normal((64, 1))
    assert findings_of(nodes, "dominant-float-layer", **small) == ()


def test_a_float_network_has_nothing_to_compare_with(findings_of) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 4, 1, 1))
    assert findings_of("y = Conv(x, f)", "dominant-float-layer", f=weight) == ()
