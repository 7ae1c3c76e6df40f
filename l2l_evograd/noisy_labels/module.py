"""Training with sample weights as a Lightning module, for any data and any model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from l2l_evograd.bilevel import bilevel_step
from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.distributed import Processes
from l2l_evograd.noisy_labels.batches import Batch, Batches, Samples
from l2l_evograd.noisy_labels.evaluation import accuracy
from l2l_evograd.noisy_labels.methods import METHODS, Method
from l2l_evograd.noisy_labels.weighting import MetaWeightNet, weighted_loss
from l2l_evograd.runs.module import Numbered, RecordingModule
from l2l_evograd.runs.precision import autocast, estimator_for
from l2l_evograd.runs.randomness import derive_seed, seeded

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4

# float16 would need a loss scale, which this module has not.
PRECISIONS = ("32", "bf16")


class NoisyLabelModule(RecordingModule):
    """A model θ that trains while a weight net λ learns how much each sample counts.

    In every iteration, with ℓ(θ, λ) = Σ_i V(ℓ_i; λ) ℓ_i / Σ_i V(ℓ_i; λ) on a batch of
    the training set and L(θ) the mean loss on one of the clean meta set::

        θ' = θ − η ∇_θ ℓ(θ, λ)        η the present learning rate of θ
        λ ← SGD step along dL(θ')/dλ
        θ ← SGD step along ∇_θ ℓ(θ, λ), with the new λ

    For Lightning's trainer, with a training loader of its own::

        module = NoisyLabelModule(model, train, meta, epochs=20)
        trainer = Trainer(max_epochs=module.blocks, reload_dataloaders_every_n_epochs=1)
        trainer.fit(module)

    Both optimizers are SGD with Nesterov momentum 0.9 and weight decay 5e-4; override
    ``configure_optimizers`` for others, the model's first. The learning rate of θ is a
    tenth after 2/3 of the iterations, and a hundredth after 5/6.

    Several processes, ``Trainer(devices=2, strategy="ddp")``, share out each batch. ℓ
    is the mean of what it is on their shares, and L likewise; the sum of the weights
    that divides, and the statistics of batch normalisation, are those of a share.
    Between blocks all take over the first one's buffers.

    Args:
        model: inputs, shape (N, ...), -> scores, shape (N, C).
        train: samples (input, class), some of whose classes are wrong.
        meta: samples whose classes are right. It pays to balance them.
        method: a name in :data:`~l2l_evograd.noisy_labels.methods.METHODS`, or a
            :class:`~l2l_evograd.noisy_labels.methods.Method`.
        epochs: passes over ``train``.
        iterations: of the whole training, in place of ``epochs``.
        batch_size: of both batches.
        lr: η at the beginning.
        meta_lr: of λ.
        augment: changes the inputs of each batch; it may draw from torch's generators.
        test: samples to measure accuracy on.
        precision: ``"32"``, or ``"bf16"`` for forward passes in bfloat16; ``Guided``
            then takes longer steps, see :mod:`l2l_evograd.runs.precision`.
        seed: of the batches, the weight net and the perturbations.

    Attributes:
        weight_net: V, a :class:`~l2l_evograd.noisy_labels.MetaWeightNet`.
        total: iterations of the whole training.
        block: iterations from one checkpoint to the next, and between two points of
            the curve: a pass, or a tenth of the training where that is less.
        blocks: how many of them.
        curve: ``iteration``, mean ``loss`` since the point before and ``accuracy`` on
            ``test``, for people; no choice is made by it.
        hypergradients: ‖dL/dλ‖ of every iteration.

    Raises:
        ValueError, TypeError: for values outside these; in training, for labels out of
            the range of the scores, or sample weights that are all 0.

    Cost: as :func:`~l2l_evograd.bilevel_step`. λ enters behind the model's outputs, so
    that the inner forward pass serves the step of θ as well.

    Source: Shu et al., "Meta-Weight-Net", NeurIPS 2019, Algorithm 1; Bohdal et al.,
    NeurIPS 2021, 4.4, for the division by the sum and the settings.
    """

    recorded = (*RecordingModule.recorded, "curve", "hypergradients")

    def __init__(
        self,
        model: nn.Module,
        train: Samples,
        meta: Samples,
        *,
        method: str | Method = "guided",
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
        super().__init__()
        if isinstance(method, str):
            check_choice(method, tuple(METHODS), "method")
            method = METHODS[method]
        check_choice(precision, PRECISIONS, "precision")
        estimator = estimator_for(precision, method.estimator)
        method = replace(method, estimator=estimator)
        if min(batch_size, epochs, 1 if iterations is None else iterations) < 1:
            raise ValueError(
                f"expected batch_size, epochs and iterations of at least 1, got "
                f"{batch_size}, {epochs}, {iterations}"
            )
        self.model = model
        self.method = method
        with seeded(derive_seed(seed, "weight net"), torch.device("cpu")):
            self.weight_net = MetaWeightNet()
        self.weight_net.requires_grad_(method.learned)
        self._train = Batches(train, batch_size, seed, "train")
        self._meta = Batches(meta, batch_size, seed, "meta")
        self._test = test
        self._lr = check_positive(lr, "lr")
        self._meta_lr = check_positive(meta_lr, "meta_lr")
        self._augment = augment
        self._precision = precision
        self._seed = seed
        self._processes = Processes()
        self.total = epochs * len(self._train) if iterations is None else iterations
        self.block = min(len(self._train), -(-self.total // 10))
        self.blocks = -(-self.total // self.block)
        self.curve: list[dict[str, float | None]] = []
        self.hypergradients: list[float] = []

    def configure_optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Return SGD over the weights and, where it is learned, over the weight net."""
        nets: list[tuple[nn.Module, float]] = [(self.model, self._lr)]
        if self.method.learned:
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

    def train_dataloader(self) -> Numbered:
        """Return the numbers of the iterations up to the next checkpoint."""
        return Numbered(self.done, min(self.done + self.block, self.total))

    def on_fit_start(self) -> None:
        """Meet the other processes; refuse a trainer that changes the mathematics.

        Raises:
            ValueError: for batches that the processes cannot share equally, or a
                precision of the trainer's own.
        """
        if self.trainer.precision not in ("32-true", "64-true"):
            raise ValueError(
                f"expected a trainer without a precision of its own, got "
                f"{self.trainer.precision!r}; give NoisyLabelModule(precision='bf16')"
            )
        count = self.trainer.world_size
        for batches in (self._train, self._meta):
            if batches.size % count:
                raise ValueError(
                    f"expected batches that {count} processes can share equally, got "
                    f"{batches.size} samples; change batch_size or devices"
                )
        self._processes = Processes(distributed.group.WORLD if count > 1 else None)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Draw the batches of iteration ``batch``, then make it, timed."""
        with seeded(derive_seed(self._seed, "augmentation", batch), self.device):
            self._batch = self._prepared(self._train.batch(batch))
            self._clean = self._prepared(self._meta.batch(batch))
        super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        """Add a point to the curve."""
        self._processes.follow_first(list(self.model.buffers()))
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
        """Make one step and return the inner loss."""
        optimizers = self.plain_optimizers()
        _set_rate(optimizers[0], iteration, self.total)
        # Every process has masks of its own; one alone has those of the first.
        rank = [self._processes.rank] if self._processes.rank else []
        with seeded(derive_seed(self._seed, "forward", iteration, *rank), self.device):
            if not self.method.learned:
                return self._plain(optimizers[0])
            return self._bilevel(iteration, *optimizers)

    def inner_loss(self, model: Any) -> Tensor:
        """Return ℓ on the present batch."""
        losses = self._losses(model, self._batch)
        if not self.method.weighted:
            return losses.mean()
        return weighted_loss(losses, self.weight_net(losses))

    def outer_loss(self, model: Any) -> Tensor:
        """Return L on the present batch of the meta set."""
        return self._losses(model, self._clean).mean()

    def _plain(self, optimizer: torch.optim.Optimizer) -> float:
        loss = self.inner_loss(self.model)
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        for weight, mean in zip(weights, self._processes.mean(found), strict=True):
            weight.grad = mean
        optimizer.step()
        return float(self._processes.means([loss.detach()])[0])

    def _bilevel(
        self,
        iteration: int,
        base: torch.optim.Optimizer,
        hyper: torch.optim.Optimizer,
    ) -> float:
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self._seed, "perturbations", iteration))
        step = bilevel_step(
            self.model,
            self.inner_loss,
            self.outer_loss,
            base,
            hyper,
            update=self.method.update or "gradient",
            estimator=self.method.estimator,
            base_step="after",
            generator=generator,
            process_group=self._processes.group,
        )
        squares = [grad.square().sum() for grad in step.hypergradient]
        self.hypergradients.append(float(torch.stack(squares).sum().sqrt()))
        return float(step.inner_loss)

    def _losses(self, model: Any, batch: Batch) -> Tensor:
        """Return the cross entropy of every sample."""
        with autocast(self._precision, self.device):
            scores = model(batch.inputs)
        if self._precision == "bf16":
            scores = scores.float()
        if scores.ndim != 2 or batch.highest >= scores.shape[1]:
            raise ValueError(
                f"expected a score for each class, got scores of shape "
                f"{tuple(scores.shape)} and a label {batch.highest}; number the "
                f"classes from 0, or give the model more outputs"
            )
        return functional.cross_entropy(scores, batch.labels, reduction="none")

    def _prepared(self, batch: Batch) -> Batch:
        """Return this process's share, augmented as in a single process."""
        batch = batch.to(self.device)
        inputs = batch.inputs
        if self._augment is not None:
            inputs = self._augment(inputs)
        share = slice(self._processes.rank, None, self._processes.count)
        return Batch(inputs[share], batch.labels[share], batch.highest)


def _set_rate(optimizer: torch.optim.Optimizer, iteration: int, total: int) -> None:
    """Set the learning rate of an iteration, whatever it was before."""
    passed = sum(iteration >= share * total for share in (2 / 3, 5 / 6))
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * 0.1**passed
