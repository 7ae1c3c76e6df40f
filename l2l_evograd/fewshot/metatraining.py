"""Meta-training of one method on pairs of episodes from two domains."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.bilevel import bilevel_step
from l2l_evograd.fewshot.auxiliary import AuxiliaryClassifier, auxiliary_weight
from l2l_evograd.fewshot.draws import (
    ClassBatches,
    Draws,
    EpisodePair,
    EpisodePairs,
)
from l2l_evograd.fewshot.episodes import Episode
from l2l_evograd.fewshot.heads import FewShotModel, few_shot_accuracy, score_loss
from l2l_evograd.fewshot.methods import Method
from l2l_evograd.fewshot.strengths import strengths_of
from l2l_evograd.fewshot.training_module import TrainingModule
from l2l_evograd.layers import feature_transforms, feature_transforms_switched
from l2l_evograd.replay.tensor import plain
from l2l_evograd.runs.accumulation import parameters_of, step_from_mean
from l2l_evograd.runs.precision import autocast, estimator_for
from l2l_evograd.runs.randomness import derive_seed, seeded

# The weight decay of the transformation's Adam, as in the released code of LFT.
HYPER_WEIGHT_DECAY = 1e-8


class MetaTraining(TrainingModule):
    """Meta-training of one method on the seen domains.

    Without learned transformation each iteration is one Adam step on the episode of
    the pseudo-seen domain. With it, the same step is made, and the transformation's
    parameters λ take an Adam step that lowers the loss on the pseudo-unseen episode,
    transformation off, of the weights after a virtual step on the pseudo-seen one,
    transformation on.

    An iteration of several pairs, ``accumulate`` in each of the trainer's processes,
    takes the means of their gradients and of their hypergradients, each pair with a
    virtual step of its own. With the auxiliary task, the gradient of its loss is added
    to that of θ, and has no part in the virtual step.

    Args:
        model: the network, with the layers the method asks for.
        method: how the transformation is treated.
        episodes: what the iterations see.
        ways: classes of an episode.
        lr: of Adam over the weights, and η of the virtual step.
        meta_lr: of Adam over λ.
        seed: of the transformation's noise and the perturbations.
        iterations: in all.
        block: iterations of one Lightning epoch, after which a checkpoint is written.
        accumulate: pairs of an iteration in each process. With more than one, the
            population of Algorithm 1 surrounds the weights before the step, not those
            after it.
        auxiliary: ordinary classification of these batches beside; None: none.
        precision: one of :data:`~l2l_evograd.runs.precision.PRECISIONS`.
        workers: processes that read images ahead; 0: none.

    Attributes:
        accuracies: of the iterations' pseudo-seen episodes.
        curve: accuracy on the unseen domain at some iterations; for people, no choice
            is made by it.
        strengths: of the layers after each block, by
            :func:`~l2l_evograd.fewshot.strengths.strengths_of`.

    Cost: as :func:`~l2l_evograd.bilevel_step` for each pair. Between processes one
    message of the size of θ and one of the size of λ an iteration.

    Source: Tseng et al., ICLR 2020, Algorithm 1; Bohdal et al., NeurIPS 2021, 4.3.
    """

    recorded = (*TrainingModule.recorded, "accuracies", "curve", "strengths")

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
        self._iterations = iterations
        self._block = block
        self._each = accumulate
        self._batches = auxiliary
        self.accuracies: list[float] = []
        self.curve: list[dict[str, float | None]] = []
        self.strengths: list[dict[str, Any]] = []
        self.hyperparameters = _transformation(model) if method.transforms else []
        for parameter in self.hyperparameters:
            parameter.requires_grad_(method.learned)
        self._start = [p.detach().clone() for p in self.hyperparameters]
        self.auxiliary: AuxiliaryClassifier | None = None
        if auxiliary is not None:
            channels = model.backbone.out_channels
            with seeded(derive_seed(seed, "auxiliary"), torch.device("cpu")):
                self.auxiliary = AuxiliaryClassifier(channels, auxiliary.classes)

    @property
    def weights(self) -> list[nn.Parameter]:
        """Every parameter of the network that is not the transformation's."""
        taken = {id(parameter) for parameter in self.hyperparameters}
        return [p for p in self.model.parameters() if id(p) not in taken]

    @property
    def figures(self) -> dict[str, float]:
        """What is shown and logged of the last iteration besides its loss."""
        return {"accuracy": self.accuracies[-1]}

    def movement(self) -> dict[str, float]:
        """Return mean |θ − initial θ| of every parameter of the transformation."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        pairs = zip(self.hyperparameters, self._start, strict=True)
        return {
            names[id(now)]: float((now.detach().cpu() - start.cpu()).abs().mean())
            for now, start in pairs
        }

    def configure_optimizers(self) -> Sequence[Optimizer]:
        """Return Adam over the weights and, where it is learned, over λ."""
        weights = list(self.weights)
        if self.auxiliary is not None:
            weights += self.auxiliary.parameters()
        base = torch.optim.Adam(weights, lr=self._lr)
        base.register_step_pre_hook(self._complete)
        optimizers = [base]
        if self.method.learned:
            hyper = torch.optim.Adam(
                self.hyperparameters, lr=self._meta_lr, weight_decay=HYPER_WEIGHT_DECAY
            )
            hyper.register_step_pre_hook(self._average)
            optimizers.append(hyper)
        return optimizers

    @property
    def total(self) -> int:
        """How many iterations there are in all."""
        return self._iterations

    @property
    def block(self) -> int:
        """Iterations from one checkpoint to the next."""
        return self._block

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
        """Note the layers as they are at first."""
        if not self.strengths:
            self._note_strengths()

    def on_train_epoch_end(self) -> None:
        """Note the layers, and let all processes have the first one's buffers."""
        super().on_train_epoch_end()
        self._note_strengths()

    def iterate(self, iteration: int) -> float:
        """Make one step and return the loss on the pseudo-seen episodes."""
        self._iteration = iteration
        optimizers = self.plain_optimizers()
        losses: list[Tensor] = []
        scores: list[Tensor] = []

        def call(number: int, pair: EpisodePair, own: Sequence[Optimizer]) -> None:
            with seeded(derive_seed(self._seed, "forward", number), self.device):
                step = self._bilevel if self.method.learned else self._plain
                found = step(number, pair, *own)
            losses.append(found[0])
            scores.append(found[1])

        pairs = zip(self.drawn.numbers, self.drawn.pairs, strict=True)
        calls = [partial(call, number, pair) for number, pair in pairs]
        if len(calls) == 1:
            calls[0](optimizers)
        else:
            step_from_mean(optimizers, calls)
        loss, right = self.common(
            torch.stack(losses).mean(), torch.stack(scores).mean()
        )
        self.accuracies.append(right)
        return loss

    def _plain(
        self, number: int, pair: EpisodePair, optimizer: Optimizer
    ) -> tuple[Tensor, Tensor]:
        loss, scores = self._loss(self.model, pair.seen)
        weights = parameters_of(optimizer)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        for weight, gradient in zip(weights, found, strict=True):
            weight.grad = gradient
        optimizer.step()
        return self.unscaled(loss), _accuracy(scores, pair.seen)

    def _bilevel(
        self, number: int, pair: EpisodePair, base: Optimizer, hyper: Optimizer
    ) -> tuple[Tensor, Tensor]:
        found: list[Tensor] = []

        def inner(model: Any) -> Tensor:
            loss, scores = self._loss(model, pair.seen)
            found.append(_accuracy(scores, pair.seen))
            return loss

        def outer(model: Any) -> Tensor:
            with feature_transforms_switched(model, False):
                return self._loss(model, pair.unseen)[0]

        estimator = estimator_for(self._precision, self.method.estimator)
        rate = self._lr
        if self.scale is not None:
            estimator = self.scale.estimator(estimator)
            rate /= self.scale.value
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self._seed, "perturbations", number))
        step = bilevel_step(
            self.model,
            inner,
            outer,
            base,
            hyper,
            hyperparameters=self.hyperparameters,
            lr=rate,
            update=self.method.update or "gradient",
            estimator=estimator,
            base_step="before",
            generator=generator,
        )
        return self.unscaled(step.inner_loss), found[0]

    def _loss(self, model: Any, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return the loss, times S in float16, and the scores."""
        scores = self.scores_of(model, episode, self._ways)
        loss = score_loss(self.model.head, scores, episode.query_y)
        return self.scaled(loss), scores

    def _complete(self, optimizer: Optimizer, *_: Any) -> None:
        """Make of the gradient of a process's episodes that of all, with all terms."""
        if self.auxiliary is not None:
            self._add_auxiliary(self.auxiliary, parameters_of(optimizer))
        self._average(optimizer)

    def _add_auxiliary(
        self, classifier: AuxiliaryClassifier, parameters: Sequence[Tensor]
    ) -> None:
        weight = auxiliary_weight(self._iteration, self._iterations)
        with torch.enable_grad(), autocast(self._precision, self.device):
            loss = weight * classifier.loss(self.model.backbone, *self.drawn.batch)
        loss = self.scaled(loss)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                own = parameter.grad
                parameter.grad = gradient if own is None else own + gradient

    def _average(self, optimizer: Optimizer, *_: Any) -> None:
        self.average(parameters_of(optimizer))

    def _note_strengths(self) -> None:
        self.strengths.append(
            {"iteration": self.done, "layers": strengths_of(self.model)}
        )


def _accuracy(scores: Tensor, episode: Episode) -> Tensor:
    return torch.tensor(few_shot_accuracy(plain(scores).detach(), episode.query_y))


def _transformation(model: nn.Module) -> list[nn.Parameter]:
    return list(feature_transforms(model).parameters())
