"""Random loops of a learner: a description, and its run with any algorithm."""

import copy
from dataclasses import dataclass

import torch
from blocks import BLOCKS
from ordinary_blocks import WIDTH, Block, Surroundings
from reference import (
    Reference,
    change_in_place,
    derivatives,
    detach,
    inside,
    load,
    replace,
    seed_everything,
    update_by_hand,
    weights,
)
from torch import nn

LR, TARGETS, BATCH = 0.2, 3, 6
OUTPUTS = ("tensor", "tuple", "dict", "dataclass", "twice")
HYPERPARAMETERS = ("weights", "decay", "film", "inside", "attribute")


@dataclass(frozen=True)
class Spec:
    """A loop of a learner.

    Attributes:
        blocks: names of the parts of the module.
        acts: what is done with the learner before the outer loss.
        output: what the module returns; "twice": it is called on each half of a batch.
        hyper: where lambda acts.
        first_order: as for the algorithm.
        seed: of everything random.
    """

    blocks: tuple[str, ...]
    acts: tuple[str, ...] = ("adapt",)
    output: str = "tensor"
    hyper: str | None = None
    first_order: bool | None = None
    seed: int = 0


@dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


class Net(nn.Module):
    def __init__(self, spec, surroundings):
        super().__init__()
        parts = [BLOCKS[name](surroundings) for name in spec.blocks]
        self.blocks, self.head = nn.ModuleList(parts), nn.Linear(WIDTH, TARGETS)
        self.kind, self.hyper = spec.output, spec.hyper
        if spec.hyper == "inside":
            self.scale = nn.Parameter(torch.linspace(0.6, 1.4, WIDTH))

    def features(self, x):
        for part in self.blocks:
            x = part(x)
        if self.hyper == "film":
            x = x * self.gamma
        elif self.hyper == "attribute":
            x = x * self.temper
        return x * self.scale if self.hyper == "inside" else x

    def forward(self, x):
        features = self.features(x)
        logits = self.head(features)
        if self.kind == "tuple":
            return logits, features
        if self.kind == "dict":
            return {"logits": logits, "features": features, "size": len(x)}
        return Output(logits, features) if self.kind == "dataclass" else logits


def predictions(out):
    if isinstance(out, torch.Tensor):
        return out
    if isinstance(out, Output):
        out = (out.logits, out.features)
    elif isinstance(out, dict):
        out = (out["logits"], out["features"])
    logits, features = out
    return logits + 0.1 * features.mean(1, keepdim=True)


def forget(module):
    for child in module.modules():
        if hasattr(child, "state"):
            child.state = None


def extra_terms(module):
    return sum(child.aux for child in module.modules() if hasattr(child, "aux"))


class Session:
    """One run: module, learner and data, and what has been gathered for the end."""

    def __init__(self, algorithm, spec, settings):
        seed_everything(spec.seed)
        self.spec, self.around = spec, Surroundings(plain=algorithm is Reference)
        self.model = Net(spec, self.around)
        self.data = torch.randn(20, WIDTH), torch.randn(20, TARGETS)
        self.lam = {
            "weights": torch.linspace(-1, 1, BATCH),
            "decay": torch.tensor(-2.0),
            "attribute": torch.linspace(0.5, 1.5, WIDTH),
        }.get(spec.hyper, torch.zeros(()))
        self.lam.requires_grad_()
        self.model.temper = self.lam if spec.hyper == "attribute" else None
        named = {
            None: None,
            "film": list(self.around.film.parameters()),
            "inside": [getattr(self.model, "scale", None)],
        }.get(spec.hyper, [self.lam])
        self.named = named or []
        self.meta = algorithm(
            self.model,
            lr=LR,
            first_order=spec.first_order,
            allow_unused=True,
            hyperparameters=named,
            **settings,
        )
        self.steps, self.terms, self.values, self.leaves = 0, [], [], []
        self.support = self.kept = None
        self.learner = self.new_learner()

    def new_learner(self):
        learner = self.meta.clone()
        self.condition(learner)
        return learner

    def condition(self, learner):
        gamma = self.around.film(self.data[0].mean(0))

        def receive(module):
            for child in module.modules():
                if isinstance(child, Net | Block):
                    child.gamma = gamma

        inside(learner, receive)

    def batch(self):
        start = 2 * (self.steps % 4)
        return tuple(tensor[start : start + BATCH] for tensor in self.data)

    def inner(self, learner):
        x, y = self.batch()
        inside(learner, forget)
        if self.spec.output == "twice":
            out = torch.cat([learner(x[:3]), learner(x[3:])])
        else:
            out = predictions(learner(x))
        losses = (out - y).square().mean(1)
        if self.spec.hyper == "weights":
            losses = losses * torch.sigmoid(self.lam)
        loss = losses.mean() + 0.3 * inside(learner, extra_terms)
        if self.spec.hyper == "decay":
            squares = sum(p.square().sum() for p in learner.parameters())
            loss = loss + self.lam.exp() * squares
        if self.kept is not None:
            loss = loss + (out - self.kept).square().mean()
        return loss

    def outer(self):
        x, y = (tensor[12:] for tensor in self.data)
        inside(self.learner, forget)
        loss = (predictions(self.learner(x)) - y).square().mean()
        return sum(self.terms, loss)


def adapt(run):
    run.support = run.inner(run.learner)
    run.learner.adapt(run.support)
    run.steps += 1


def adapt_callable(run):
    run.learner.adapt(lambda learner: run.inner(learner))
    run.steps += 1  # it would see another batch now


def adapt_first_order(run):
    run.learner.adapt(run.inner(run.learner), first_order=True)
    run.steps += 1


def load_head(run):
    weight, bias = torch.full((TARGETS, WIDTH), 0.3), torch.full((TARGETS,), 0.1)
    load(run.learner, {"head.weight": weight, "head.bias": bias})


def replace_head(run):
    x = run.data[0]
    inside(run.learner, forget)
    rows = [inside(run.learner, lambda m, i=i: m.features(x[i::3])) for i in range(3)]
    replace(run.learner, "head.weight", torch.stack([row.mean(0) for row in rows]))


def by_hand(run):
    update_by_hand(run.learner, run.inner(run.learner), LR)
    run.steps += 1


def with_second_learner(run):
    other = run.new_learner()
    x, _ = run.batch()
    inside(other, forget), inside(run.learner, forget)
    taught = predictions(other(x))
    distance = (predictions(run.learner(x)) - taught).square().mean()
    run.learner.adapt(run.inner(run.learner) + distance)
    run.steps += 1


def keep_support(run):
    if run.support is not None:
        run.terms.append(run.support)


def keep_output(run):
    inside(run.learner, forget)
    run.kept = predictions(run.learner(run.batch()[0]))


def adapt_a_copy(run):
    twin = copy.deepcopy(run.learner)
    twin.adapt(run.inner(twin))
    run.values.extend(p.detach() for p in weights(twin).values())


def hook_then_adapt(run):
    for p in weights(run.learner).values():
        p.register_hook(lambda grad: grad.clamp(-0.05, 0.05))
    adapt(run)


def change_rate(run):
    run.learner.lr = 1 if run.learner.lr == LR else LR


def evaluate(run):
    with torch.no_grad():
        inside(run.learner, forget)
        run.learner(run.data[0])


ACTS = {
    "adapt": adapt,
    "adapt callable": adapt_callable,
    "adapt first order": adapt_first_order,
    "load head": load_head,
    "decay": lambda run: change_in_place(run.learner, lambda p: 0.9 * p),
    "noise": lambda run: change_in_place(
        run.learner, lambda p: p + 0.1 * torch.randn_like(p)
    ),
    "cut": lambda run: setattr(run, "leaves", detach(run.learner)),
    "replace head": replace_head,
    "by hand": by_hand,
    "second learner": with_second_learner,
    "keep support": keep_support,
    "keep output": keep_output,
    "adapt a copy": adapt_a_copy,
    "hook": hook_then_adapt,
    "rate": change_rate,
    "evaluate": evaluate,
    "train": lambda run: run.learner.train(),
    "eval": lambda run: run.learner.eval(),
    "condition": lambda run: run.condition(run.learner),
}


@dataclass
class Outcome:
    values: list[torch.Tensor]
    weights: list[torch.Tensor]
    hyper: list[torch.Tensor]


def play(algorithm, spec, **settings) -> Outcome:
    run = Session(algorithm, spec, settings)
    for act in spec.acts:
        ACTS[act](run)
    loss = run.outer()
    chosen = {id(tensor) for tensor in run.named}
    targets = [p for p in run.model.parameters() if p.requires_grad]
    targets += run.around.tensors()
    targets = [p for p in targets if id(p) not in chosen] + run.leaves
    found = derivatives(loss, [*run.named, *targets])
    run.values += [loss.detach(), *(p.detach() for p in weights(run.learner).values())]
    return Outcome(run.values, found[len(run.named) :], found[: len(run.named)])
