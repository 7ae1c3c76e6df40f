"""The strength of the feature-wise transformation of each layer."""

import torch
from torch import nn

from l2l_evograd.layers import FeatureWiseTransform2d


def strengths_of(model: nn.Module) -> dict[str, dict[str, float]]:
    """Return the mean strength of each transformation layer by its name.

    "gamma" and "beta" are the standard deviations of scale and shift, averaged over the
    channels.
    """
    strength = FeatureWiseTransform2d.strength
    with torch.no_grad():
        return {
            name: {
                "gamma": float(strength(layer.theta_gamma).mean()),
                "beta": float(strength(layer.theta_beta).mean()),
            }
            for name, layer in model.named_modules()
            if isinstance(layer, FeatureWiseTransform2d)
        }
