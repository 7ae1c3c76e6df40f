"""Learned feature-wise transformation over several domains.

Shows:   a prototypical network whose encoder has feature-wise transformation layers.
         Their strengths are learned: after one step on an episode of one domain with
         the layers on, the network should do well on an episode of another domain with
         the layers off. Compared with ordinary episodic training, one line changes:
         bilevel_step() replaces `optimizer.step()`.
Prints:  the loss on the second domain, how far the strengths moved, and the accuracy on
         an unseen domain before and after training. It takes many seeds to tell whether
         the layers are better than none: see `l2l-evograd crossdomain`.
Time:    about thirty seconds on one core. Needs the extra `fewshot`.

    python examples/feature_transforms.py --steps 100
"""

import argparse
import random
from functools import partial
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2l_evograd import bilevel_step
from l2l_evograd.experiments.crossdomain.data.domains import built_in_domains
from l2l_evograd.experiments.crossdomain.data.episodes import Episode, EpisodeSampler
from l2l_evograd.experiments.crossdomain.networks import heads
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.layers import feature_transforms, feature_transforms_switched

WAYS, SHOTS, QUERIES, SIZE = 5, 5, 5, 20
SEEN, UNSEEN = ("print", "outline", "inverse"), "texture"


class Outcome(NamedTuple):
    """Outer losses, accuracy on the unseen domain, and the mean distance λ moved."""

    losses: list[float]
    before: float
    after: float
    moved: float


def loss_with_layers(episode: Episode, on: bool, model: nn.Module) -> Tensor:
    """Return the few-shot loss with the layers of the model on or off."""
    with feature_transforms_switched(model, on=on):
        return heads.few_shot_loss(model, episode, WAYS)


def accuracy(model: nn.Module, sampler: EpisodeSampler, episodes: int) -> float:
    """Return the mean accuracy over episodes, in evaluation mode."""
    model.eval()
    drawn = [sampler.sample(seed) for seed in range(episodes)]
    with torch.no_grad():
        hits = [heads.few_shot_accuracy(model(e, WAYS), e.query_y) for e in drawn]
    model.train()
    return mean(hits)


def main(steps: int = 100, episodes: int = 50) -> Outcome:
    """Train, print and return the figures."""
    torch.manual_seed(0)
    pick = random.Random(0)
    splits = {name: domain.splits for name, domain in built_in_domains(SIZE).items()}
    seen = [EpisodeSampler(splits[d]["base"], WAYS, SHOTS, QUERIES) for d in SEEN]
    unseen = EpisodeSampler(splits[UNSEEN]["novel"], WAYS, SHOTS, QUERIES)

    backbone = make_backbone("cnn4", SIZE, feature_transforms=True)
    model = heads.FewShotModel(backbone, heads.make_head("protonet", backbone))
    strengths = list(feature_transforms(model).parameters())
    initial = torch.cat([s.detach().flatten() for s in strengths])
    weights = [p for n, p in model.named_parameters() if "theta_" not in n]
    base = torch.optim.Adam(weights, lr=1e-3)
    hyper = torch.optim.Adam(strengths, lr=1e-2)

    before, losses = accuracy(model, unseen, episodes), []
    for step in range(steps):
        source, target = (sampler.sample(step) for sampler in pick.sample(seen, 2))
        inner_loss = partial(loss_with_layers, source, True)
        outer_loss = partial(loss_with_layers, target, False)
        result = bilevel_step(
            model, inner_loss, outer_loss, base, hyper, base_step="before"
        )
        losses.append(result.outer_loss.item())
        if step % 20 == 19:
            print(f"step {step + 1:4}: loss on another domain {mean(losses[-20:]):.3f}")
    after = accuracy(model, unseen, episodes)
    now = torch.cat([s.detach().flatten() for s in strengths])
    moved = (now - initial).abs().mean().item()
    print(f"strengths: from {now.min():.2f} to {now.max():.2f}, moved by {moved:.3f}")
    print(f"accuracy on {UNSEEN!r}: {before:.3f} before, {after:.3f} after")
    return Outcome(losses, before, after, moved)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    main(parser.parse_args().steps)
