"""EvoGrad for learn2learn: hypergradients without second-order differentiation."""

from l2l_evograd import interrupts

if interrupts.is_command():
    interrupts.begin_with_process()  # before torch is loaded, which takes seconds

from l2l_evograd.algorithms import (
    ARUBA,
    EvoGradMetaOptimizer,
    TrajectoryBuffer,
    WarpGrad,
)
from l2l_evograd.bilevel import (
    BilevelGradients,
    BilevelStep,
    Hypergradient,
    ReweightingStep,
    bilevel_gradients,
    bilevel_step,
    hypergradient,
    reweighting_step,
)
from l2l_evograd.estimators import EvoGrad, Exact, Guided
from l2l_evograd.layers import (
    FeatureWiseTransform2d,
    add_feature_transforms,
    feature_transforms,
    feature_transforms_switched,
)
from l2l_evograd.oracle import hypergradcheck
from l2l_evograd.warp_layers import WarpLayer2d, add_warp_layers, warp_layers

__all__ = [
    # Algorithms behind learn2learn's interface
    "ARUBA",
    "EvoGradMetaOptimizer",
    "TrajectoryBuffer",
    "WarpGrad",
    # Estimators of the hypergradient
    "EvoGrad",
    "Exact",
    "Guided",
    # Bilevel problems without learn2learn
    "BilevelGradients",
    "BilevelStep",
    "Hypergradient",
    "ReweightingStep",
    "bilevel_gradients",
    "bilevel_step",
    "hypergradcheck",
    "hypergradient",
    "reweighting_step",
    # Feature-wise transformation
    "FeatureWiseTransform2d",
    "add_feature_transforms",
    "feature_transforms",
    "feature_transforms_switched",
    # Warp layers
    "WarpLayer2d",
    "add_warp_layers",
    "warp_layers",
]

__version__ = "0.2.0"
