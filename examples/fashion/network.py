"""The residual network of this example."""

from torch import Tensor, nn

# Chosen for two cores: 26 million multiply-accumulates an image train in about 75 s an epoch.
# Multiples of 32, so that INT8 kernels and 2:4 sparsity need no padding.
STEM_CHANNELS = 32
# (channels, stride) of each block: 28 x 28 -> 14 x 14 -> 7 x 7 -> 7 x 7 -> 4 x 4.
BLOCKS = ((32, 2), (96, 2), (96, 1), (192, 2))


class ResidualBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)).

    The shortcut is the identity where the shape stays, else a normalized 1 x 1 convolution.

    Source: He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385), option B.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs, 3)
        )
        keeps_shape = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if keeps_shape else _convolution(inputs, outputs, 1, stride)))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map x: float32, (batch, inputs, height, width), to (batch, outputs, height / stride, ...)."""
        activated: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return activated


class FashionNetwork(nn.Module):
    """Ten logits of a grey image: a stem, four residual blocks, the mean over the image, one Gemm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(1, STEM_CHANNELS, 3), nn.ReLU())
        widths = (STEM_CHANNELS, *(channels for channels, _ in BLOCKS))
        self.blocks = nn.Sequential(*(ResidualBlock(widths[at], *block) for at, block in enumerate(BLOCKS)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map image: float32, (batch, 1, 28, 28), pixel / 255, to logits: float32, (batch, 10)."""
        pooled = self.pool(self.blocks(self.stem(image))).flatten(1)
        logits: Tensor = self.classifier(pooled)
        return logits


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (at stride 1), and the normalization behind it."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]
