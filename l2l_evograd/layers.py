"""Feature-wise transformation: noise of learned strength on normalised features.

The layers come after the norms of an encoder's blocks. During training they imitate the
shift in feature statistics that another domain would cause.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.encoders import LEARN2LEARN, comes_from, residual_blocks

# softplus(x) = log(1 + exp(100 x)) / 100: close to max(x, 0), as in the released code.
_SOFTPLUS_BETA = 100.0

_Norm = nn.BatchNorm2d | nn.SyncBatchNorm | nn.GroupNorm


class FeatureWiseTransform2d(nn.Module):
    """Scale and shift feature maps by noise of learned strength.

    In training mode, while :attr:`enabled`:

        γ = 1 + N(0, 1) · softplus(θ_γ),  β = N(0, 1) · softplus(θ_β),  z' = γ z + β

    with one draw per channel per forward pass, shared over batch and pixels. Otherwise
    the input itself is returned and nothing is drawn.

    Args:
        num_features: C, channels of the input.
        init_gamma: initial θ_γ.
        init_beta: initial θ_β.

    Attributes:
        theta_gamma, theta_beta: parameters of shape (1, C, 1, 1).
        enabled: whether this layer transforms its input in training mode.

    Raises:
        ValueError: for an input with another number of channels.

    Source: Tseng, Lee, Huang, Yang, "Cross-Domain Few-Shot Classification via Learned
    Feature-Wise Transformation", ICLR 2020, eq. 2 and 3.
    """

    def __init__(
        self, num_features: int, init_gamma: float = 0.3, init_beta: float = 0.5
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"expected num_features of at least 1, got {num_features}")
        shape = (1, num_features, 1, 1)
        self.num_features = num_features
        self.theta_gamma = nn.Parameter(torch.full(shape, float(init_gamma)))
        self.theta_beta = nn.Parameter(torch.full(shape, float(init_beta)))
        self.enabled = True

    def forward(self, features: Tensor) -> Tensor:
        """Return the transformed feature maps, shape (N, C, H, W)."""
        if not (self.training and self.enabled):
            return features
        if features.dim() != 4 or features.shape[1] != self.num_features:
            raise ValueError(
                f"expected feature maps of shape (N, {self.num_features}, H, W), got "
                f"{tuple(features.shape)}; make the layer with the number of channels "
                f"of the norm before it"
            )
        gamma = 1 + _noise(self.theta_gamma) * self.strength(self.theta_gamma)
        beta = _noise(self.theta_beta) * self.strength(self.theta_beta)
        return gamma.to(features.dtype) * features + beta.to(features.dtype)

    @staticmethod
    def strength(theta: Tensor) -> Tensor:
        """Return the standard deviation that a parameter stands for."""
        return F.softplus(theta, beta=_SOFTPLUS_BETA)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        return f"{self.num_features}, enabled={self.enabled}"


def add_feature_transforms(
    model: nn.Module, init_gamma: float = 0.3, init_beta: float = 0.5
) -> nn.Module:
    """Put feature-wise transformation layers into an encoder, in place.

    torchvision ResNets get one layer after ``bn2`` and one after the shortcut's norm of
    every block; learn2learn's CNN4, ResNet12 and WRN28 one after every norm. A norm
    becomes ``nn.Sequential(norm, FeatureWiseTransform2d)`` under its own name.

    Args:
        model: the encoder, or a module that contains it.
        init_gamma: initial θ_γ of all layers.
        init_beta: initial θ_β of all layers.

    Returns:
        ``model``.

    Raises:
        ValueError: if the model has such layers already, or no place for one.
    """
    if len(feature_transforms(model)):
        raise ValueError(
            "the model has feature-wise transformation layers already: expected a "
            "model without any; build a new one or use feature_transforms(model)"
        )
    places = _places(model)
    if not places:
        raise ValueError(
            f"found no place for a feature-wise transformation in "
            f"{type(model).__name__}: expected blocks of a torchvision ResNet or of "
            f"learn2learn's CNN4, ResNet12 or WRN28; put FeatureWiseTransform2d after "
            f"the norms of other encoders yourself"
        )
    for parent, name, norm in places:
        channels = (
            norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
        )
        layer = FeatureWiseTransform2d(channels, init_gamma, init_beta)
        if norm.weight is not None:
            layer.to(norm.weight.device, norm.weight.dtype)
        layer.train(norm.training)
        parent._modules[name] = nn.Sequential(norm, layer)
    return model


def feature_transforms(model: nn.Module) -> nn.ModuleList:
    """Return the feature-wise transformation layers of a model or learner, in order.

    The list can be passed as ``hyperparameters=``.
    """
    return nn.ModuleList(
        module
        for module in model.modules()
        if isinstance(module, FeatureWiseTransform2d)
    )


@contextlib.contextmanager
def feature_transforms_switched(model: nn.Module, on: bool) -> Iterator[None]:
    """Switch the layers of one model or learner on or off in a ``with`` block.

    Args:
        model: the model or learner. Its clones and copies keep their own state.
        on: whether the transformation applies in training mode.
    """
    layers = [m for m in model.modules() if isinstance(m, FeatureWiseTransform2d)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = on
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.enabled = enabled


def _noise(theta: Tensor) -> Tensor:
    return torch.randn(theta.shape, dtype=theta.dtype, device=theta.device)


def _norms(model: nn.Module) -> list[tuple[nn.Module, str, _Norm]]:
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _Norm)
    ]


def _places(model: nn.Module) -> list[tuple[nn.Module, str, _Norm]]:
    """Return the norms, with their parents, that get a transformation after them."""
    blocks = residual_blocks(model)
    if blocks:
        shortcuts = [block.downsample for block in blocks]
        return [
            (parent, name, norm)
            for parent, name, norm in _norms(model)
            if (parent in blocks and name == "bn2")
            or any(parent is shortcut for shortcut in shortcuts)
        ]
    inside = {
        id(part)
        for module in model.modules()
        if comes_from(module, LEARN2LEARN)
        for part in module.modules()
    }
    return [place for place in _norms(model) if id(place[0]) in inside]
