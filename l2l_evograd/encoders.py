"""How the encoders of torchvision and learn2learn are built, told without an import."""

from torch import nn

TORCHVISION_RESNET = ("torchvision.models.resnet",)
LEARN2LEARN_CNN4 = ("learn2learn.vision.models.cnn4",)
LEARN2LEARN = (
    *LEARN2LEARN_CNN4,
    "learn2learn.vision.models.resnet12",
    "learn2learn.vision.models.wrn28",
)


def comes_from(module: nn.Module, sources: tuple[str, ...]) -> bool:
    """Say whether a module's class, or a base class, is defined in ``sources``."""
    return any(kind.__module__ in sources for kind in type(module).__mro__)


def residual_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of torchvision's ResNets."""
    return [
        module
        for module in model.modules()
        if comes_from(module, TORCHVISION_RESNET) and hasattr(module, "bn2")
    ]
