"""I3D, the network behind FVD (Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017).

Names and shapes of the state dict are those of piergiaj's pytorch-i3d (`Mixed_3b.b1a.conv3d.weight`), so published
files of Kinetics-400 weights load unchanged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


# Name, input channels, and the output channels of the convolutions in a block: 1x1x1; 1x1x1 before 3x3x3; 3x3x3;
# 1x1x1 before 3x3x3; 3x3x3; 1x1x1 after pooling.
INCEPTION_BLOCKS = (
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)
MIN_FRAMES = 9  # the last pooling covers two time steps, and fewer frames leave only one


def missing_on_axis(size: int, kernel: int, stride: int) -> int:
    """Amount of TensorFlow's SAME padding along one axis: it makes ceil(size / stride) outputs."""
    return max(((size + stride - 1) // stride - 1) * stride + kernel - size, 0)


def pad_same(hidden: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's SAME padding with zeros: half of it before, an odd one after."""
    # Not a loop: TorchScript of torch 2.15 loses the tensor in the second iteration.
    time = missing_on_axis(hidden.shape[2], kernel[0], stride[0])
    height = missing_on_axis(hidden.shape[3], kernel[1], stride[1])
    width = missing_on_axis(hidden.shape[4], kernel[2], stride[2])
    before = [width // 2, height // 2, time // 2]  # F.pad counts from the last axis
    sizes = [before[0], width - before[0], before[1], height - before[1], before[2], time - before[2]]
    return F.pad(hidden, sizes)


class Unit3D(nn.Module):
    """Convolution, batch norm and ReLU; the last one of the network has a bias, and neither norm nor ReLU."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 1, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel, kernel, kernel), (stride, stride, stride)
        self.conv3d = nn.Conv3d(channels, out_channels, kernel, stride, bias=last)
        self.bn = nn.Identity() if last else nn.BatchNorm3d(out_channels, eps=1e-3)
        self.activation = nn.Identity() if last else nn.ReLU()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv3d(pad_same(hidden, self.kernel, self.stride))))


class MaxPool(nn.Module):
    """Max pooling with SAME padding. Zeros never win, because the input has passed through a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, hidden: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(hidden, self.kernel, self.stride), self.kernel, self.stride)


class InceptionBlock(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, out: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit3D(channels, out[0])
        self.b1a, self.b1b = Unit3D(channels, out[1]), Unit3D(out[1], out[2], 3)
        self.b2a, self.b2b = Unit3D(channels, out[3]), Unit3D(out[3], out[4], 3)
        self.b3a, self.b3b = MaxPool((3, 3, 3), (1, 1, 1)), Unit3D(channels, out[5])

    def forward(self, hidden: Tensor) -> Tensor:
        branches = (
            self.b0(hidden),
            self.b1b(self.b1a(hidden)),
            self.b2b(self.b2a(hidden)),
            self.b3b(self.b3a(hidden)),
        )
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """The RGB stream of I3D, up to the logits."""

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.MaxPool3d_4a_3x3 = MaxPool((3, 3, 3), (2, 2, 2))
        self.MaxPool3d_5a_2x2 = MaxPool((2, 2, 2), (2, 2, 2))
        for name, channels, out in INCEPTION_BLOCKS:
            self.add_module(name, InceptionBlock(channels, out))
        self.logits = Unit3D(1024, num_classes, last=True)

    def forward(
        self, video: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = True
    ) -> Tensor:
        """Logits (batch, num_classes), or probabilities without `return_features`.

        Args:
            video: (batch, 3, num_frames, 224, 224) in [-1, 1], at least `MIN_FRAMES` frames.
            rescale: Accept values in [0, 255], as the TorchScript file of StyleGAN-V does.
            resize: Accept frames of any size, as that file does.
            return_features: Whether to stop before the softmax.
        """
        if resize:
            video = F.interpolate(video, size=[video.shape[2], 224, 224], mode="trilinear", align_corners=False)
        if rescale:
            video = 2 * video / 255 - 1
        hidden = self.MaxPool3d_2a_3x3(self.Conv3d_1a_7x7(video))
        hidden = self.MaxPool3d_3a_3x3(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(hidden)))
        hidden = self.MaxPool3d_4a_3x3(self.Mixed_3c(self.Mixed_3b(hidden)))
        hidden = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(hidden)))))
        hidden = self.Mixed_5c(self.Mixed_5b(self.MaxPool3d_5a_2x2(hidden)))
        hidden = F.avg_pool3d(hidden, [2, 7, 7], [1, 1, 1])
        logits = self.logits(hidden).mean(dim=[2, 3, 4])
        return logits if return_features else logits.softmax(dim=1)
