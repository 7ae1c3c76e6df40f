"""The methods of the few-shot experiment, and what a meta-iteration of each costs.

This module imports no network library, because the command line's help needs it.
"""

from dataclasses import dataclass

# Number of perturbed models of the method "evograd".
CANDIDATES = 2


@dataclass(frozen=True)
class Method:
    """A meta-learning algorithm.

    Attributes:
        name: name on the command line.
        summary: one line that describes the method to the user.
        family: ``"maml"``: learns from the loss on query images; ``"warp"``: does so
            with warp layers in the network; ``"reptile"``: learns from where
            adaptation ends, without query images.
        control: the method that this one is compared with, besides MAML.
        trained_as: name of the method whose training this one shares.
    """

    name: str
    summary: str
    family: str
    control: str | None = None
    trained_as: str = ""

    @property
    def training(self) -> str:
        """Name of the training."""
        return self.trained_as or self.name


BASELINE = "maml"

METHODS = {
    method.name: method
    for method in (
        Method("maml", "MAML, exact", "maml"),
        Method("fomaml", "MAML, first order", "maml"),
        Method("anil", "MAML that adapts only the last layer", "maml"),
        Method("meta-sgd", "MAML with a learned rate for every weight", "maml"),
        Method(
            "warpgrad",
            "warp layers learned by WarpGrad, exact",
            "warp",
            control="warpgrad-frozen",
        ),
        Method(
            "warpgrad-fo",
            "warp layers learned by WarpGrad, first order",
            "warp",
            control="warpgrad-frozen",
        ),
        Method(
            "evograd",
            "warp layers learned by EvoGrad's perturbed models",
            "warp",
            control="warpgrad-frozen",
        ),
        Method(
            "warpgrad-frozen", "the same network, its warp layers never trained", "warp"
        ),
        Method("reptile", "Reptile", "reptile"),
        Method(
            "aruba",
            "Reptile with ARUBA's rate for every weight",
            "reptile",
            control="reptile",
        ),
        Method(
            "aruba++",
            "the same training, with rates that fall at the test",
            "reptile",
            control="reptile",
            trained_as="aruba",
        ),
    )
}


@dataclass(frozen=True)
class Sizes:
    """The numbers that the cost of a task depends on.

    Attributes:
        support: number of images in an inner step of the families maml and warp.
        query: number of query images of a task.
        batch: number of images in an inner step of the family reptile.
        steps: number of inner steps.
        init: how the family warp learns the initial weights, as for
            :class:`~l2l_evograd.algorithms.warpgrad.WarpGrad`.
    """

    support: int
    query: int
    batch: int
    steps: int
    init: str


def gradients_per_task(method: Method, sizes: Sizes) -> int:
    """Return how many gradients a method computes for one task of meta-training.

    One gradient is one forward and one backward pass over one image. A product of a
    Hessian and a vector, through an inner step, counts as 2 for each image of the step.
    A second backward pass through the same forward pass counts as 1.

    With K steps, s support images, q query images and m images in a minibatch:

    - maml, meta-sgd: K s + q, and 2 K s through the steps.
    - fomaml: K s + q.
    - anil: s + q. The network below the last layer sees every image once. The last
      layer's own steps are not counted.
    - warpgrad: K (s + q), a query after every step, and 2 K s through the steps.
    - warpgrad-fo: K (s + q).
    - evograd: K s + q, and C K s for C perturbed models, each with one pass.
    - warpgrad-frozen: K s.
    - reptile, aruba: K m.

    The initial weights of the family warp cost extra: ``init="maml"``: q, and 2 K s
    through the steps; ``"fomaml"``: q; ``"leap"``: s; ``"reptile"``: nothing. This is
    not so for evograd, whose query loss gives their gradient as well.
    """
    steps, support, query = sizes.steps, sizes.support, sizes.query
    inner, curved = steps * support, 2 * steps * support
    initial = {
        "maml": query + curved,
        "fomaml": query,
        "leap": support,
        "reptile": 0,
    }[sizes.init]
    return {
        "maml": inner + query + curved,
        "meta-sgd": inner + query + curved,
        "fomaml": inner + query,
        "anil": support + query,
        "warpgrad": inner + steps * query + curved + initial,
        "warpgrad-fo": inner + steps * query + initial,
        "evograd": inner + query + CANDIDATES * inner,
        "warpgrad-frozen": inner + initial,
        "reptile": steps * sizes.batch,
        "aruba": steps * sizes.batch,
    }[method.training]
