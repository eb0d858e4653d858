from torch import nn

from bibench_train import architectures
from bibench_train.layers import BinaryConv2d, binary_layers


def test_five_of_six_convolutions_are_binary() -> None:
    model = architectures.build("vgg_small", algorithm="bnn")
    assert [layer.weight.shape[0] for _, layer in binary_layers(model)] == [128, 256, 256, 512, 512]


def test_the_pool_follows_the_even_convolutions_before_their_batch_norm() -> None:
    model = architectures.build("vgg_small", algorithm="bnn")
    layers = list(model.get_submodule("features").children())
    followers = [type(layers[i + 1]) for i, m in enumerate(layers) if isinstance(m, nn.Conv2d)]
    assert followers == [nn.BatchNorm2d, nn.MaxPool2d] * 3
    assert isinstance(layers[3], BinaryConv2d)


def test_the_head_takes_8192_features() -> None:
    head = architectures.build("vgg_small", num_classes=10).get_submodule("head")
    assert (head.in_features, head.out_features) == (8192, 10)
