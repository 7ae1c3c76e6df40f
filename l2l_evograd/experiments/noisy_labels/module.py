"""A Lightning module for training with sample weights, for any data and any model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2l_evograd.bilevel import bilevel_step, reweighting_step
from l2l_evograd.checks import InputError, check_choice, check_count, check_positive
from l2l_evograd.experiments.methods import Method
from l2l_evograd.experiments.noisy_labels.batches import Batch, Iterations, Samples
from l2l_evograd.experiments.noisy_labels.evaluation import accuracy
from l2l_evograd.experiments.noisy_labels.methods import (
    METHODS,
    RANDOM,
    WEIGHTINGS,
    check_weighting,
)
from l2l_evograd.experiments.noisy_labels.weighting import (
    MetaWeightNet,
    random_weights,
    weighted_loss,
)
from l2l_evograd.experiments.precision import UNSCALED, estimator_for
from l2l_evograd.experiments.training_module import TrainingModule, parameters_of
from l2l_evograd.seeds import derive_seed, generator_for, seeded

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


class NoisyLabelModule(TrainingModule):
    """Trains a model θ while the weight of each training sample is learned.

    L(θ) is the outer loss, the mean loss on a batch of the clean meta set. With
    ``weighting="net"``, λ is a weight net, and ℓ is the inner loss on a batch of the
    training set, ℓ(θ, λ) = Σ_i V(ℓ_i; λ) ℓ_i / Σ_i V(ℓ_i; λ). Every iteration makes
    these steps::

        θ' = θ − η ∇_θ ℓ(θ, λ)        η: current learning rate of θ
        λ ← SGD step along dL(θ')/dλ
        θ ← SGD step along ∇_θ ℓ(θ, λ), with the new λ

    With ``weighting="samples"``, λ is one weight for each sample of the batch. It is
    found anew in every iteration, by :func:`~l2l_evograd.reweighting_step`.

    Lightning's trainer runs the module. The module makes its own training loader::

        module = NoisyLabelModule(model, train, meta, epochs=20)
        trainer = Trainer(max_epochs=module.blocks, reload_dataloaders_every_n_epochs=1)
        trainer.fit(module)

    Both optimizers are SGD with Nesterov momentum 0.9 and weight decay 5e-4. To use
    other optimizers, override ``configure_optimizers`` and return the model's first.
    The learning rate of θ is multiplied by 0.1 after 2/3 of the iterations, and again
    after 5/6.

    With several processes, ``Trainer(devices=2, strategy="ddp")``, each process gets
    an equal share of each batch. ℓ and L are means over the processes. Each process
    computes the sum of the weights that divides ℓ, and the statistics of batch
    normalisation, on its own share. After each block, all processes copy the buffers
    of the first.

    Args:
        model: maps inputs, shape (N, ...), to scores, shape (N, C).
        train: samples (input, class), some with wrong classes.
        meta: samples with right classes, preferably balanced.
        method: a name in
            :data:`~l2l_evograd.experiments.noisy_labels.methods.METHODS`, or a
            :class:`~l2l_evograd.experiments.methods.Method`.
        weighting: ``"net"`` or ``"samples"``.
        warm_up: number of iterations at the beginning in which all samples have the
            same weight and λ is not learned.
        epochs: number of passes over ``train``.
        iterations: number of iterations of the whole training, in place of ``epochs``.
        batch_size: size of the training batch and of the meta batch.
        lr: η at the beginning.
        meta_lr: learning rate of λ.
        augment: function that changes the inputs of each batch; it may draw from
            torch's generators.
        test: samples for measuring accuracy.
        precision: ``"32"``, or ``"bf16"`` for forward passes in bfloat16; ``Guided``
            then takes longer steps, see :mod:`l2l_evograd.experiments.precision`.
        seed: seed of the batches, the weight net and the perturbations.

    Attributes:
        weight_net: V, a :class:`~l2l_evograd.experiments.noisy_labels.MetaWeightNet`.
        total: number of iterations of the whole training.
        block: number of iterations from one checkpoint to the next, and between two
            points of the curve: one pass, or a tenth of the training if that is less.
        blocks: number of blocks.
        curve: points with the ``iteration``, the mean ``loss`` since the previous
            point, and the ``accuracy`` on ``test``; the training does not depend on
            the curve.
        hypergradients: ‖dL/dλ‖ of every iteration.
        given_weights: with learned sample weights, the last weight that each training
            sample was given, times the size of its batch, so that 1 is an ordinary
            weight; NaN for a sample that this process has not used.

    Raises:
        InputError: for other values; in training, for labels out of the range of the
            scores, or sample weights that are all 0.

    Cost: the cost of :func:`~l2l_evograd.bilevel_step`. λ acts only on the model's
    outputs, so the step of θ can use the inner forward pass as well.

    Source: Shu et al., "Meta-Weight-Net", NeurIPS 2019, Algorithm 1; Bohdal et al.,
    NeurIPS 2021, 4.4, for the division by the sum and the settings; Ren et al., ICML
    2018, Algorithm 1, for the weights of samples.
    """

    recorded = (*TrainingModule.recorded, "curve", "hypergradients", "given_weights")

    def __init__(
        self,
        model: nn.Module,
        train: Samples,
        meta: Samples,
        *,
        method: str | Method = "guided",
        weighting: str = "net",
        warm_up: int = 0,
        epochs: int = 60,
        iterations: int | None = None,
        batch_size: int = 100,
        lr: float = 0.1,
        meta_lr: float = 1e-3,
        augment: Callable[[Tensor], Tensor] | None = None,
        test: Samples | None = None,
        precision: str = "32",
        seed: int = 0,
    ) -> None:
        super().__init__(precision)
        if isinstance(method, str):
            check_choice(method, tuple(METHODS), "method")
            method = METHODS[method]
        check_choice(weighting, WEIGHTINGS, "weighting")
        check_weighting(method, weighting)
        check_choice(precision, UNSCALED, "precision")
        estimator = estimator_for(precision, method.estimator)
        method = replace(method, estimator=estimator)
        check_count(batch_size, "batch_size")
        check_count(epochs, "epochs")
        if iterations is not None:
            check_count(iterations, "iterations")
        self.model = model
        self.method = method
        self.weighting = weighting
        self.warm_up = check_count(warm_up, "warm_up", 0)
        with seeded(derive_seed(seed, "weight net")):
            self.weight_net = MetaWeightNet()
        self.weight_net.requires_grad_(self._learns_net)
        self._batches = Iterations(train, meta, batch_size, seed, augment)
        self._test = test
        self._lr = check_positive(lr, "lr")
        self._meta_lr = check_positive(meta_lr, "meta_lr")
        self._seed = seed
        one_pass = len(self._batches.train)
        self.total = epochs * one_pass if iterations is None else iterations
        self.block = min(one_pass, -(-self.total // 10))
        self.curve: list[dict[str, float | None]] = []
        self.hypergradients: list[float] = []
        self.given_weights = [float("nan")] * len(train)

    @property
    def _learns_net(self) -> bool:
        return self.method.learned and self.weighting == "net"

    @property
    def _warming_up(self) -> bool:
        return self.done < self.warm_up

    def configure_optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Return SGD for the model and, if it is learned, for the weight net."""
        nets: list[tuple[nn.Module, float]] = [(self.model, self._lr)]
        if self._learns_net:
            nets.append((self.weight_net, self._meta_lr))
        return [
            torch.optim.SGD(
                net.parameters(),
                lr=lr,
                momentum=MOMENTUM,
                nesterov=True,
                weight_decay=WEIGHT_DECAY,
            )
            for net, lr in nets
        ]

    def on_fit_start(self) -> None:
        """Join the other processes, and refuse a trainer that would change the results.

        Raises:
            InputError: for batches that the processes cannot share equally, or if the
                trainer sets a precision.
        """
        if self.trainer.precision not in ("32-true", "64-true"):
            raise InputError(
                f"expected a trainer that does not set a precision, got "
                f"{self.trainer.precision!r}; use NoisyLabelModule(precision='bf16')"
            )
        self._batches.check_shares(self.trainer.world_size)
        super().on_fit_start()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Draw the batches of iteration ``batch``, then run and time it."""
        drawn = self._batches.draw(batch, self.processes, self.device)
        self._batch, self._clean = drawn
        super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        """Add a point to the curve."""
        self.processes.follow_first(list(self.model.buffers()))
        losses = self.losses[-self.block :]
        test = self._test
        self.curve.append(
            {
                "iteration": self.done,
                "loss": sum(losses) / len(losses),
                "accuracy": None if test is None else accuracy(self.model, test),
            }
        )

    def iterate(self, iteration: int) -> float:
        """Run one iteration and return the inner loss."""
        optimizers = self.plain_optimizers()
        _set_rate(optimizers[0], iteration, self.total)
        # Each process draws different dropout masks. The first process draws the masks
        # that a single process would draw.
        rank = [self.processes.rank] if self.processes.rank else []
        with seeded(derive_seed(self._seed, "forward", iteration, *rank), self.device):
            if not self.method.learned or self._warming_up:
                return self._plain(optimizers[0])
            if self.weighting == "samples":
                return self._reweighted(iteration, optimizers[0])
            return self._bilevel(iteration, *optimizers)

    def inner_loss(self, model: Any) -> Tensor:
        """Return ℓ on the current batch."""
        losses = self._losses(model, self._batch)
        if self._warming_up:
            return losses.mean()
        if self.method.uses_lambda:
            return weighted_loss(losses, self.weight_net(losses))
        if self.method.name == RANDOM:
            return weighted_loss(losses, random_weights(len(losses), losses.device))
        return losses.mean()

    def outer_loss(self, model: Any) -> Tensor:
        """Return L on the current batch of the meta set."""
        return self._losses(model, self._clean).mean()

    def _plain(self, optimizer: torch.optim.Optimizer) -> float:
        loss = self.inner_loss(self.model)
        weights = parameters_of(optimizer)
        self.step(optimizer, torch.autograd.grad(loss, weights, allow_unused=True))
        return self.common(loss)[0]

    def _bilevel(
        self,
        iteration: int,
        base: torch.optim.Optimizer,
        hyper: torch.optim.Optimizer,
    ) -> float:
        found = bilevel_step(
            self.model,
            self.inner_loss,
            self.outer_loss,
            base,
            hyper,
            update=self.method.update or "gradient",
            estimator=self.method.estimator,
            base_step="after",
            generator=generator_for(self._seed, "perturbations", iteration),
            process_group=self.processes.group,
        )
        squares = [grad.square().sum() for grad in found.hypergradient]
        self.hypergradients.append(float(torch.stack(squares).sum().sqrt()))
        return float(found.inner_loss)

    def _reweighted(self, iteration: int, base: torch.optim.Optimizer) -> float:
        """Make a step with weights found for the samples of this batch."""
        found = reweighting_step(
            self.model,
            lambda view: self._losses(view, self._batch),
            self.outer_loss,
            base,
            len(self._batch.labels),
            update=self.method.update or "gradient",
            estimator=self.method.estimator,
            generator=generator_for(self._seed, "perturbations", iteration),
            process_group=self.processes.group,
        )
        self.hypergradients.append(float(found.hypergradient.norm()))
        weights = (found.weights * self._batches.train.size).tolist()
        places = self._batches.indices(iteration, self.processes)
        for place, weight in zip(places, weights, strict=True):
            self.given_weights[place] = weight
        # The weights of all processes add up to 1, so the loss is a sum over them.
        own = (found.weights * found.losses).sum() * self.processes.count
        return self.common(own)[0]

    def _losses(self, model: Any, batch: Batch) -> Tensor:
        """Return the cross entropy of every sample."""
        scores = self.outputs(model, batch.inputs)
        if scores.ndim != 2 or batch.highest >= scores.shape[1]:
            raise InputError(
                f"expected a score for each class, got scores of shape "
                f"{tuple(scores.shape)} and a label {batch.highest}; number the "
                f"classes from 0, or give the model more outputs"
            )
        return functional.cross_entropy(scores, batch.labels, reduction="none")


def _set_rate(optimizer: torch.optim.Optimizer, iteration: int, total: int) -> None:
    """Set the learning rate of an iteration, which depends only on its number."""
    passed = sum(iteration >= share * total for share in (2 / 3, 5 / 6))
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * 0.1**passed
