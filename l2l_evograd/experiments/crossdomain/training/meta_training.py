"""Meta-training of one method on pairs of episodes from two domains."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.bilevel import bilevel_gradients
from l2l_evograd.experiments.crossdomain.data.episode_stream import (
    ClassBatches,
    Draws,
    EpisodePair,
    EpisodePairs,
)
from l2l_evograd.experiments.crossdomain.data.episodes import Episode
from l2l_evograd.experiments.crossdomain.networks.heads import (
    FewShotModel,
    few_shot_accuracy,
    score_loss,
)
from l2l_evograd.experiments.crossdomain.training.auxiliary import (
    AuxiliaryClassifier,
    auxiliary_weight,
)
from l2l_evograd.experiments.crossdomain.training.reading_module import ReadingModule
from l2l_evograd.experiments.crossdomain.training.strengths import strengths_of
from l2l_evograd.experiments.methods import Method
from l2l_evograd.experiments.precision import autocast, estimator_for
from l2l_evograd.experiments.training_module import parameters_of
from l2l_evograd.layers import feature_transforms, feature_transforms_switched
from l2l_evograd.replay.tensor import plain
from l2l_evograd.seeds import derive_seed, generator_for, seeded

# The weight decay of Adam for the transformation, as in the released code of LFT.
HYPER_WEIGHT_DECAY = 1e-8


Gradients = Sequence[Tensor | None]


class PairFigures(NamedTuple):
    """The contribution of one pair of episodes to an iteration.

    Attributes:
        gradients: gradients of the weights.
        hypergradient: hypergradient of λ; empty if λ is not learned.
        loss: loss on the pseudo-seen episode.
        accuracy: accuracy on the pseudo-seen episode.
    """

    gradients: Gradients
    hypergradient: Gradients
    loss: Tensor
    accuracy: Tensor


class MetaTraining(ReadingModule):
    """Meta-training of one method on the seen domains.

    Without a learned transformation, each iteration is one Adam step on the episode of
    the pseudo-seen domain. With a learned transformation, this step is the same. In
    addition, the parameters λ of the transformation take an Adam step. It lowers the
    outer loss: the loss on the pseudo-unseen episode, without transformation, after a
    virtual step on the pseudo-seen episode, with transformation.

    An iteration may have several pairs, ``accumulate`` in each of the trainer's
    processes. It uses the means of their gradients and of their hypergradients. Each
    pair has its own virtual step. With the auxiliary task, the gradient of its loss is
    added to the gradient of θ, but not to the virtual step.

    Args:
        model: the network, with the layers that the method needs.
        method: treatment of the transformation.
        episodes: pairs of episodes for the iterations.
        ways: number of classes of an episode.
        lr: learning rate of Adam for the weights, and η of the virtual step.
        meta_lr: learning rate of Adam for λ.
        seed: seed of the transformation's noise and of the perturbations.
        iterations: total number of iterations.
        block: number of iterations of one Lightning epoch, after which a checkpoint is
            written.
        accumulate: number of pairs of an iteration in each process. With more than
            one pair, the population of Algorithm 1 surrounds the weights before the
            step. With one pair, it surrounds the weights after the step, as in the
            paper's code.
        auxiliary: batches for the auxiliary classification task; None: no such task.
        precision: one of :data:`~l2l_evograd.experiments.precision.PRECISIONS`.
        workers: number of processes that read images in advance; 0: none.

    Attributes:
        accuracies: accuracy of each iteration on the pseudo-seen episodes.
        curve: accuracy on the unseen domain at some iterations; the training does not
            depend on it.
        strengths: strengths of the layers after each block, from
            :func:`~.strengths.strengths_of`.

    Cost: the cost of :func:`~l2l_evograd.bilevel_gradients` for each pair. Processes
    exchange one message of the size of θ and one of the size of λ in each iteration.

    Source: Tseng et al., ICLR 2020, Algorithm 1; Bohdal et al., NeurIPS 2021, 4.3.
    """

    recorded = (*ReadingModule.recorded, "accuracies", "curve", "strengths")

    def __init__(
        self,
        model: FewShotModel,
        method: Method,
        episodes: EpisodePairs,
        *,
        ways: int,
        lr: float,
        meta_lr: float,
        seed: int,
        iterations: int,
        block: int,
        accumulate: int = 1,
        auxiliary: ClassBatches | None = None,
        precision: str = "32",
        workers: int = 0,
    ) -> None:
        super().__init__(model, precision, workers)
        self.model = model
        self.method = method
        self._episodes = episodes
        self._ways = ways
        self._lr = lr
        self._meta_lr = meta_lr
        self._seed = seed
        self.total = iterations
        self.block = block
        self._each = accumulate
        self._batches = auxiliary
        self.accuracies: list[float] = []
        self.curve: list[dict[str, float | None]] = []
        self.strengths: list[dict[str, Any]] = []
        self.hyperparameters = _transformation(model) if method.uses_lambda else []
        for parameter in self.hyperparameters:
            parameter.requires_grad_(method.learned)
        self._start = [p.detach().clone() for p in self.hyperparameters]
        self.auxiliary: AuxiliaryClassifier | None = None
        if auxiliary is not None:
            channels = model.backbone.out_channels
            with seeded(derive_seed(seed, "auxiliary")):
                self.auxiliary = AuxiliaryClassifier(channels, auxiliary.classes)

    @property
    def weights(self) -> list[nn.Parameter]:
        """All parameters of the network except those of the transformation."""
        taken = {id(parameter) for parameter in self.hyperparameters}
        return [p for p in self.model.parameters() if id(p) not in taken]

    @property
    def figures(self) -> dict[str, float]:
        """Values of the last iteration that are shown and logged besides its loss."""
        return {"accuracy": self.accuracies[-1]}

    def movement(self) -> dict[str, float]:
        """Return the mean |λ − initial λ| of every parameter of the transformation."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        pairs = zip(self.hyperparameters, self._start, strict=True)
        return {
            names[id(now)]: float((now.detach().cpu() - start.cpu()).abs().mean())
            for now, start in pairs
        }

    def configure_optimizers(self) -> Sequence[Optimizer]:
        """Return Adam for the weights and, if λ is learned, for λ."""
        weights = list(self.weights)
        if self.auxiliary is not None:
            weights += self.auxiliary.parameters()
        optimizers = [torch.optim.Adam(weights, lr=self._lr)]
        if self.method.learned:
            hyper = torch.optim.Adam(
                self.hyperparameters, lr=self._meta_lr, weight_decay=HYPER_WEIGHT_DECAY
            )
            optimizers.append(hyper)
        return optimizers

    def draws(self) -> Draws:
        """Return the pairs of this process."""
        return Draws(
            self._episodes,
            each=self._each,
            rank=self.processes.rank,
            count=self.processes.count,
            batches=self._batches,
        )

    def on_train_start(self) -> None:
        """Record the initial strengths of the layers."""
        if not self.strengths:
            self._note_strengths()

    def on_train_epoch_end(self) -> None:
        """Record the strengths of the layers, and copy the first process's buffers."""
        super().on_train_epoch_end()
        self._note_strengths()

    def iterate(self, iteration: int) -> float:
        """Run one iteration and return the loss on the pseudo-seen episodes."""
        base, *hyper = self.plain_optimizers()
        # Only Algorithm 1 moves the weights before it draws its population, as in the
        # paper's code. If there are several pairs, the weights move once, at the end.
        evolves = self.method.update == "evolution"
        early = evolves and len(self.drawn.pairs) == 1

        def move(gradients: dict[str, Tensor | None], _: Any) -> None:
            if early:
                self._step_base(base, list(gradients.values()), iteration)

        found = []
        for number, pair in zip(self.drawn.numbers, self.drawn.pairs, strict=True):
            with seeded(derive_seed(self._seed, "forward", number), self.device):
                found.append(
                    self._bilevel(number, pair, move if evolves else None)
                    if self.method.learned
                    else self._plain(pair)
                )
        for optimizer in hyper:
            self.step(optimizer, _mean([each.hypergradient for each in found]))
        if not early:
            gradients = _mean([each.gradients for each in found])
            self._step_base(base, gradients, iteration)
        loss, right = self.common(
            torch.stack([each.loss for each in found]).mean(),
            torch.stack([each.accuracy for each in found]).mean(),
        )
        self.accuracies.append(right)
        return loss

    def _plain(self, pair: EpisodePair) -> PairFigures:
        loss, scores = self._loss(self.model, pair.seen)
        gradients = torch.autograd.grad(loss, self.weights, allow_unused=True)
        accuracy = _accuracy(scores, pair.seen)
        return PairFigures(gradients, [], self.unscaled(loss), accuracy)

    def _bilevel(
        self, number: int, pair: EpisodePair, move: Callable[..., None] | None
    ) -> PairFigures:
        accuracies: list[Tensor] = []

        def inner(model: Any) -> Tensor:
            loss, scores = self._loss(model, pair.seen)
            accuracies.append(_accuracy(scores, pair.seen))
            return loss

        def outer(model: Any) -> Tensor:
            with feature_transforms_switched(model, False):
                return self._loss(model, pair.unseen)[0]

        estimator = estimator_for(self._precision, self.method.estimator)
        rate = self._lr
        if self.scale is not None:
            estimator = self.scale.estimator(estimator)
            rate /= self.scale.value
        found = bilevel_gradients(
            self.model,
            inner,
            outer,
            hyperparameters=self.hyperparameters,
            lr=rate,
            update=self.method.update or "gradient",
            estimator=estimator,
            generator=generator_for(self._seed, "perturbations", number),
            move=move,
        )
        return PairFigures(
            list(found.gradients.values()),
            found.hypergradient,
            self.unscaled(found.inner_loss),
            accuracies[0],
        )

    def _step_base(
        self, optimizer: Optimizer, gradients: Gradients, iteration: int
    ) -> None:
        """Make the step of the weights and of the auxiliary classifier."""
        gradients = list(gradients)
        if self.auxiliary is not None:
            gradients += [None for _ in self.auxiliary.parameters()]
            weight = auxiliary_weight(iteration, self.total)
            with torch.enable_grad(), autocast(self._precision, self.device):
                loss = weight * self.auxiliary.loss(
                    self.model.backbone, *self.drawn.batch
                )
            more = torch.autograd.grad(
                self.scaled(loss), parameters_of(optimizer), allow_unused=True
            )
            gradients = list(map(_sum, gradients, more))
        self.step(optimizer, gradients)

    def _loss(self, model: Any, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return the loss, times S in float16, and the scores."""
        scores = self.outputs(model, episode, self._ways)
        loss = score_loss(self.model.head, scores, episode.query_y)
        return self.scaled(loss), scores

    def _note_strengths(self) -> None:
        self.strengths.append(
            {"iteration": self.done, "layers": strengths_of(self.model)}
        )


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _mean(several: Sequence[Gradients]) -> Gradients:
    """Return the mean of several gradients; None counts as 0."""
    total = several[0]
    if len(several) == 1:
        return total
    for gradients in several[1:]:
        total = list(map(_sum, total, gradients))
    return [None if grad is None else grad / len(several) for grad in total]


def _accuracy(scores: Tensor, episode: Episode) -> Tensor:
    return torch.tensor(few_shot_accuracy(plain(scores).detach(), episode.query_y))


def _transformation(model: nn.Module) -> list[nn.Parameter]:
    return list(feature_transforms(model).parameters())
