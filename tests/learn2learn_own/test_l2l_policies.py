"""learn2learn's loops of reinforcement learning, in small: MAML with DiCE, and ProMP.

The environment is a line: the reward is how near an action comes to the task's goal.
"""

import math
from copy import deepcopy

import learn2learn as l2l
import pytest
import torch
from learn2learn.algorithms import MAML
from torch import nn
from torch.distributions import Normal, kl_divergence

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")
STEPS, GOALS = 8, (-1.0, 2.0)


class DiagonalPolicy(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
        self.sigma = nn.Parameter(torch.zeros(2))

    def density(self, states):
        scale = torch.exp(torch.clamp(self.sigma, min=math.log(1e-6)))
        return Normal(loc=self.mean(states), scale=scale)

    def log_prob(self, states, actions):
        return self.density(states).log_prob(actions).mean(dim=1, keepdim=True)

    def forward(self, states):
        return self.density(states).sample()


def policy():
    torch.manual_seed(0)
    return DiagonalPolicy()


def episode(learner, goal):
    """Two episodes of ``STEPS``: states, actions, advantages and ends."""
    states = torch.randn(2 * STEPS, 3)
    with torch.no_grad():
        actions = learner(states)
    rewards = -(actions - goal).square().sum(1, keepdim=True)
    dones = torch.zeros(2 * STEPS, 1)
    dones[STEPS - 1 :: STEPS] = 1
    advantages = (rewards - rewards.mean()) / rewards.std()
    return states, actions, advantages, dones


def weighted_sums(values, weights):
    for i in range(values.size(0)):
        values[i] += values[i - 1] * weights[i]
    return values


def dice_loss(learner, states, actions, advantages, dones):
    weights = torch.ones_like(dones)
    weights[1:].add_(dones[:-1], alpha=-1.0)
    weights /= dones.sum()
    sums = weighted_sums(learner.log_prob(states, actions), weights)
    return -(l2l.magic_box(sums) * advantages).mean()


def maml_with_dice(algorithm, first_order, adapt_steps=2):
    """A meta-training of two iterations; returns losses and the weights at the end."""
    meta = algorithm(policy(), lr=0.1, first_order=first_order)
    opt, losses = torch.optim.Adam(meta.parameters(), 0.01), []
    for _ in range(2):
        total = 0.0
        for goal in GOALS:
            learner = meta.clone()
            for _ in range(adapt_steps):
                learner.adapt(dice_loss(learner, *episode(learner, goal)))
            total = total + dice_loss(learner, *episode(learner, goal))
        opt.zero_grad()
        (total / len(GOALS)).backward()
        opt.step()
        losses.append(total.detach())
    return [*losses, *(p.detach() for p in meta.parameters())]


def without_in_place_sums(learner, states, actions, advantages, dones):
    log_probs = learner.log_prob(states, actions)
    return -(l2l.magic_box(log_probs.cumsum(0)) * advantages).mean()


def policy_gradient(algorithm, first_order):
    meta = algorithm(policy(), lr=0.1, first_order=first_order)
    learner = meta.clone()
    for _ in range(2):
        learner.adapt(without_in_place_sums(learner, *episode(learner, 1.0)))
    without_in_place_sums(learner, *episode(learner, 1.0)).backward()
    return [p.grad for p in meta.parameters()]


def clipped_loss(new, old, advantages, clip=0.3):
    ratio = torch.exp(new - old)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.min(ratio * advantages, clipped * advantages).mean()


def quantities(states, actions, old_policy, new_policy):
    old, new = old_policy.density(states), new_policy.density(states)
    old_log = old.log_prob(actions).mean(dim=1, keepdim=True).detach()
    return old, new, old_log, new.log_prob(actions).mean(dim=1, keepdim=True)


def collect(meta, adapt_steps):
    """First-order adaptation of copies, with the weights cut off before each step."""
    tasks = []
    for goal in GOALS:
        learner, replays, policies = deepcopy(meta), [], []
        for _ in range(adapt_steps):
            for p in learner.parameters():
                p.detach_().requires_grad_()
            policies.append(deepcopy(learner))
            replays.append(episode(learner, goal))
            states, actions, advantages, _ = replays[-1]
            loss = -(learner.log_prob(states, actions) * advantages).mean()
            learner.adapt(loss, first_order=True)
        for p in learner.parameters():
            p.detach_().requires_grad_()
        policies.append(deepcopy(learner))
        replays.append(episode(learner, goal))
        tasks.append((replays, policies))
    return tasks


def promp(algorithm, adapt_steps=2):
    meta = algorithm(policy(), lr=0.1)
    opt, losses = torch.optim.Adam(meta.parameters(), 0.01), []
    tasks = collect(meta, adapt_steps)
    for _ in range(2):
        total = 0.0
        for replays, policies in tasks:
            learner = meta.clone()
            states, actions, advantages, _ = replays[0]
            known = quantities(states, actions, policies[0], learner)
            for step in range(adapt_steps):
                old, new, old_log, new_log = known
                penalty = kl_divergence(old, new).mean()
                ratio = torch.exp(new_log - old_log)
                learner.adapt(-(ratio * advantages).mean())
                states, actions, advantages, _ = replays[step + 1]
                known = quantities(states, actions, policies[step + 1], learner)
                total = total + clipped_loss(known[3], known[2], advantages)
                total = total + 0.0005 * penalty
        opt.zero_grad()
        total.backward(retain_graph=True)
        opt.step()
        losses.append(total.detach())
    return [*losses, *(p.detach() for p in meta.parameters())]


def truncated(algorithm):
    """As dist_promp: a copy is detached as a whole between its steps."""
    learner = deepcopy(algorithm(policy(), lr=0.1))
    for _ in range(2):
        l2l.detach_module(learner, keep_requires_grad=True)
        learner.adapt(without_in_place_sums(learner, *episode(learner, 1.0)))
    return [p.detach() for p in learner.parameters()]


def same(found, truth):
    assert len(found) == len(truth)
    assert max(float(t.abs().max()) for t in truth) > 1e-3
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_with_dice(first_order):
    found = maml_with_dice(EvoGradMetaOptimizer, first_order)
    same(found, maml_with_dice(MAML, first_order))


@pytest.mark.parametrize("first_order", [False, True])
def test_policy_gradients(first_order):
    found = policy_gradient(EvoGradMetaOptimizer, first_order)
    same(found, policy_gradient(MAML, first_order))


def test_promp():
    same(promp(EvoGradMetaOptimizer), promp(MAML))


def test_copies_detached_between_steps():
    same(truncated(EvoGradMetaOptimizer), truncated(MAML))


def test_collecting_leaves_the_original_and_gives_the_same_episodes():
    for algorithm in (MAML, EvoGradMetaOptimizer):
        meta = algorithm(policy(), lr=0.1)
        before = [p.detach().clone() for p in meta.parameters()]
        collect(meta, 2)
        assert all(
            torch.equal(p, b) for p, b in zip(meta.parameters(), before, strict=True)
        )
        assert all(p.is_leaf and p.grad is None for p in meta.parameters())
