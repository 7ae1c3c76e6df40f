"""Meta-training of one method: two domains and two episodes in every iteration."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel import bilevel_step
from l2l_evograd.fewshot.domains import Dataset
from l2l_evograd.fewshot.episodes import Episode, EpisodeSampler
from l2l_evograd.fewshot.heads import FewShotModel, few_shot_loss
from l2l_evograd.fewshot.methods import Method
from l2l_evograd.layers import feature_transforms, feature_transforms_switched
from l2l_evograd.runs.module import Numbered, RecordingModule
from l2l_evograd.runs.randomness import derive_seed, seeded

# The weight decay of the transformation's Adam, as in the released code of LFT.
HYPER_WEIGHT_DECAY = 1e-8


class EpisodePair(NamedTuple):
    """What one iteration of meta-training sees.

    Attributes:
        seen: episode of the pseudo-seen domain, for the weights.
        unseen: episode of the pseudo-unseen domain, for the transformation.
    """

    seen: Episode
    unseen: Episode


class EpisodePairs:
    """The episodes of every iteration, the same for every method.

    Each iteration draws a pseudo-seen and a different pseudo-unseen domain among the
    seen ones, and one episode from each.

    Args:
        domains: name -> base classes of each seen domain, at least two.
        shape: ways, shots, queries.
        seed: what all draws follow from.
    """

    def __init__(
        self, domains: Mapping[str, Dataset], shape: tuple[int, int, int], seed: int
    ) -> None:
        self._samplers = {
            name: EpisodeSampler(dataset, *shape) for name, dataset in domains.items()
        }
        self._seed = seed

    def names(self, iteration: int) -> tuple[str, str]:
        """Return the pseudo-seen and the pseudo-unseen domain of an iteration."""
        draw = random.Random(derive_seed(self._seed, "domains", iteration))
        seen, unseen = draw.sample(sorted(self._samplers), 2)
        return seen, unseen

    def pair(self, iteration: int, device: torch.device) -> EpisodePair:
        """Return an iteration's episodes on ``device``."""
        episodes = []
        for role, name in zip(("seen", "unseen"), self.names(iteration), strict=True):
            seed = derive_seed(self._seed, "episode", role, iteration)
            episode = self._samplers[name].sample(seed)
            episodes.append(Episode(*(tensor.to(device) for tensor in episode)))
        return EpisodePair(*episodes)


class MetaTraining(RecordingModule):
    """Meta-training of one method on the seen domains.

    Without learned transformation each iteration is one Adam step on the episode of
    the pseudo-seen domain. With it, the same step is made, and the transformation's
    parameters λ take an Adam step that lowers the loss on the pseudo-unseen episode,
    transformation off, of the weights after a virtual step on the pseudo-seen one,
    transformation on.

    Args:
        model: the network, with the layers the method asks for.
        method: how the transformation is treated.
        episodes: what each iteration sees.
        ways: classes of an episode.
        lr: of Adam over the weights, and η of the virtual step.
        meta_lr: of Adam over λ.
        seed: of the transformation's noise and the perturbations.
        iterations: in all.
        block: iterations of one Lightning epoch, after which a checkpoint is written.

    Attributes:
        curve: accuracy on the unseen domain at some iterations; for people, no choice
            is made by it.

    Cost: as :func:`~l2l_evograd.bilevel_step` for each iteration.

    Source: Tseng et al., ICLR 2020, Algorithm 1; Bohdal et al., NeurIPS 2021, 4.3.
    """

    recorded = (*RecordingModule.recorded, "curve")

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
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self._episodes = episodes
        self._ways = ways
        self._lr = lr
        self._meta_lr = meta_lr
        self._seed = seed
        self._iterations = iterations
        self._block = block
        self.curve: list[dict[str, float | None]] = []
        self.hyperparameters = _transformation(model) if method.transforms else []
        for parameter in self.hyperparameters:
            parameter.requires_grad_(method.learned)
        self._start = [p.detach().clone() for p in self.hyperparameters]

    @property
    def weights(self) -> list[nn.Parameter]:
        """Every parameter that is not the transformation's."""
        taken = {id(parameter) for parameter in self.hyperparameters}
        return [p for p in self.model.parameters() if id(p) not in taken]

    def movement(self) -> dict[str, float]:
        """Return mean |θ − initial θ| of every parameter of the transformation."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        pairs = zip(self.hyperparameters, self._start, strict=True)
        return {
            names[id(now)]: float((now.detach().cpu() - start.cpu()).abs().mean())
            for now, start in pairs
        }

    def configure_optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Return Adam over the weights and, where it is learned, over λ."""
        optimizers = [torch.optim.Adam(self.weights, lr=self._lr)]
        if self.method.learned:
            optimizers.append(
                torch.optim.Adam(
                    self.hyperparameters,
                    lr=self._meta_lr,
                    weight_decay=HYPER_WEIGHT_DECAY,
                )
            )
        return optimizers

    def train_dataloader(self) -> Numbered:
        """Return the numbers of the iterations up to the next checkpoint."""
        return Numbered(self.done, min(self.done + self._block, self._iterations))

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Draw the episodes of iteration ``batch``, then make it, timed."""
        self._pair = self._episodes.pair(batch, self.device)
        super().training_step(batch, batch_idx)

    def iterate(self, iteration: int) -> float:
        """Make one step and return the loss on the pseudo-seen episode."""
        with seeded(derive_seed(self._seed, "forward", iteration), self.device):
            if self.method.learned:
                return self._bilevel(iteration)
            return self._plain()

    def _plain(self) -> float:
        (optimizer,) = self.plain_optimizers()
        loss = few_shot_loss(self.model, self._pair.seen, self._ways)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return float(loss.detach())

    def _bilevel(self, iteration: int) -> float:
        base, hyper = self.plain_optimizers()
        pair, ways = self._pair, self._ways

        def inner(model: Any) -> Tensor:
            return few_shot_loss(model, pair.seen, ways)

        def outer(model: Any) -> Tensor:
            with feature_transforms_switched(model, False):
                return few_shot_loss(model, pair.unseen, ways)

        generator = torch.Generator()
        generator.manual_seed(derive_seed(self._seed, "perturbations", iteration))
        step = bilevel_step(
            self.model,
            inner,
            outer,
            base,
            hyper,
            lr=self._lr,
            update=self.method.update or "gradient",
            estimator=self.method.estimator,
            base_step="before",
            generator=generator,
        )
        return float(step.inner_loss)


def _transformation(model: nn.Module) -> list[nn.Parameter]:
    return list(feature_transforms(model).parameters())
