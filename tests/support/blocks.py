"""Parts to build random modules of, each from (n, 4) to (n, 4), in float64.

``ORDINARY`` has nothing that a package may refuse. ``ODD`` has what users' modules do
besides. ``SMOOTH`` names those whose inner loss, with what is detached held constant
and the random numbers as they came out, is a smooth function of the weights.
"""

import importlib.util
import random

import torch
from ordinary_blocks import ORDINARY, WIDTH, Block, block, layered, parametrized
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * x**2


class Reversed(torch.autograd.Function):
    """The gradient reversal of domain adaptation: not the derivative of anything."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -0.5 * grad


class HiddenState(nn.Module):
    """State on the module, with its graph, from one call of a loss to the next."""

    def __init__(self):
        super().__init__()
        self.cell, self.state = nn.RNNCell(WIDTH, WIDTH), None

    def forward(self, x):
        self.state = self.cell(x, self.state)
        return self.state


class WrittenBuffer(Block):
    def prepare(self):
        self.register_buffer("mean", torch.zeros(WIDTH))

    def after(self, h):
        out = h - self.mean
        with torch.no_grad():
            self.mean.mul_(0.5).add_(0.5 * h.mean(0))
        return out


class ReplacedBuffer(Block):
    def prepare(self):
        self.register_buffer("mean", torch.zeros(WIDTH))

    def after(self, h):
        out = h - self.mean
        self.mean = 0.5 * self.mean + 0.5 * h.mean(0).detach()
        return out


class BufferWithGraph(Block):
    def prepare(self):
        self.register_buffer("last", torch.zeros(WIDTH))

    def after(self, h):
        h = h + 0.3 * self.last
        self.last = h.mean(0)
        return h


class Hooked(Block):
    def prepare(self):
        self.layer.register_forward_hook(
            lambda module, args, out: out * (1 + module.bias.sum())
        )
        self.layer.register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))

    def after(self, h):
        return h


class Counting(Block):
    def prepare(self):
        self.calls = 0

    def after(self, h):
        self.calls += 1
        return h / self.calls


def keeping_a_term(s, h):
    s.aux = h.square().mean()
    return h


def with_a_gradient_hook(s, h):
    if h.requires_grad:
        h.register_hook(lambda grad: grad.clamp(-0.05, 0.05))
    return h


def written_by_column(s, h):
    out = torch.zeros_like(h)
    for i in range(WIDTH):
        out[:, i] = h[:, i] * h[:, i - 1]
    return out


def changed_in_place(s, h):
    h = h * 1.5
    h.mul_(0.7).add_(s.layer.bias)
    h[:, 0].sigmoid_()
    return h


def scaled_without_grad(s, h):
    with torch.no_grad():
        scale = 1 / (0.5 + s.layer.weight.norm())
    return h * scale


def masked_by_python(s, h):
    kept = [float(random.random() < 0.6) for _ in range(WIDTH)]
    return h * torch.tensor(kept)


def masked_by_numpy(s, h):
    drawn = importlib.import_module("numpy").random.rand(WIDTH)
    return h * torch.from_numpy((drawn < 0.6).astype("float64"))


def own_generator(s):
    s.__dict__["generator"] = torch.Generator().manual_seed(3)


def masked_by_own_generator(s, h):
    return h * (torch.rand(h.shape, generator=s.generator) < 0.6)


def recomputed(s, h):
    def rest(h):
        return torch.tanh(s.layer(h))

    return rest(h) if s.around.plain else checkpoint(rest, h, use_reentrant=False)


ODD = {
    "spectral norm": layered(parametrized(parametrizations.spectral_norm)),
    "written buffer": WrittenBuffer,
    "replaced buffer": ReplacedBuffer,
    "buffer with graph": BufferWithGraph,
    "forward hooks": Hooked,
    "counting calls": Counting,
    "hidden state": lambda around: HiddenState(),
    "aux": block(keeping_a_term),
    "conditioning": block(lambda s, h: h * s.gamma),
    "closure": block(lambda s, h: h * s.around.outside),
    "gradient hook": block(with_a_gradient_hook),
    "columns": block(written_by_column),
    "in place": block(changed_in_place),
    "detach": block(lambda s, h: h * (1 + h.detach())),
    "no grad": block(scaled_without_grad),
    "weight detached": block(lambda s, h: h @ s.layer.weight.detach()),
    "cube": block(lambda s, h: Cube.apply(h)),
    "reversed": block(lambda s, h: h + 0.5 * Reversed.apply(h)),
    "python random": block(masked_by_python),
    "own generator": block(masked_by_own_generator, own_generator),
    "checkpoint": block(recomputed),
    "branch": block(lambda s, h: h * 2 if float(h.detach().mean()) > 0 else h.sin()),
}
if importlib.util.find_spec("numpy"):
    ODD["numpy random"] = block(masked_by_numpy)

BLOCKS = ORDINARY | ODD
WITH_KINKS = {"relu", "embedding", "branch"}
SMOOTH = sorted(BLOCKS.keys() - WITH_KINKS)
