"""Small right calls of the library's functions and classes, argument by argument."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd import (
    ARUBA,
    EvoGradMetaOptimizer,
    TrajectoryBuffer,
    WarpGrad,
    bilevel_gradients,
    bilevel_step,
    hypergradient,
    reweighting_step,
)
from l2l_evograd.unroll import (
    SignDescent,
    forward_mode,
    forward_mode_of,
    greedy,
    reversible_sgd,
    run_sgd,
    unrolled_sgd,
)

Numbers = list[Tensor]

X, XQ = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


class Problem:
    """A network with batch normalisation and dropout, λ, optimizers, a generator."""

    def __init__(self) -> None:
        self.model = nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Linear(5, 3)
        )
        self.lam = torch.linspace(-1, 1, 6).requires_grad_()
        self.lam.grad = torch.ones(6)
        self.generator = torch.Generator().manual_seed(5)
        self.base = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.hyper = torch.optim.Adam([self.lam], lr=0.01)
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.base.step()
        self.hyper.step()
        self.weights = {"w": torch.linspace(0.5, 1, 5)}

    def inner(self, view: Any) -> Tensor:
        losses = F.cross_entropy(view(X), Y, reduction="none")
        return (torch.sigmoid(self.lam) * losses).mean()

    def outer(self, view: Any) -> Tensor:
        return F.cross_entropy(view(XQ), Y)

    def state(self) -> Numbers:
        """Everything that a call must not move."""
        held = [*self.model.parameters(), self.lam, *self.weights.values()]
        found = [*held, *(t.grad for t in held if t.grad is not None)]
        found += self.model.buffers()
        for optimizer in (self.base, self.hyper):
            found += [v for s in optimizer.state.values() for v in s.values()]
        found = [tensor.detach().clone() for tensor in found]
        return [*found, torch.get_rng_state(), self.generator.get_state()]


class Call(NamedTuple):
    """A call.

    Attributes:
        name: of the function.
        function: called with the problem and the arguments; returns tensors.
        usual: function of a problem that returns right arguments.
        roles: what each argument is, a key of the pools of values.
        make: function that makes a problem.
    """

    name: str
    function: Callable[..., Any]
    usual: Callable[[Problem], dict[str, Any]]
    roles: Mapping[str, str]
    make: Callable[[], Problem] = Problem

    def make_call(self, problem: Problem, **other: Any) -> Numbers:
        """Make the call, with other values of some arguments."""
        arguments = self.usual(problem)
        for name, value in other.items():
            role = self.roles.get(name, "")
            if role == "result":
                arguments[name] = changed(arguments[name], value)
            elif role == "optimizer" and callable(value):
                held = [p for g in arguments[name].param_groups for p in g["params"]]
                made = value if isinstance(value, type) else value(held)
                arguments[name] = made
            else:
                arguments[name] = value
        return list(numbers_in(self.function(problem, **arguments)))


def changed(loss: Callable[..., Tensor], change: Callable[[Any], Any]) -> Any:
    """Return a loss function that returns something else."""
    return lambda *arguments: change(loss(*arguments))


def numbers_in(value: Any) -> Any:
    """Yield the tensors that a result holds."""
    if isinstance(value, Tensor):
        yield value.detach().clone()
    elif isinstance(value, Mapping):
        yield from numbers_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers_in(part)


def _bilevel(problem: Problem) -> dict[str, Any]:
    return {
        "model": problem.model,
        "inner_loss": problem.inner,
        "outer_loss": problem.outer,
        "hyperparameters": problem.lam,
        "lr": 0.1,
        "update": "gradient",
        "estimator": "guided",
        "generator": problem.generator,
        "allow_unused": False,
        "check": "first",
    }


_BILEVEL = {
    "model": "model",
    "inner_loss": "function",
    "outer_loss": "function",
    "hyperparameters": "tensors",
    "update": "name",
    "estimator": "name",
    "generator": "generator",
    "allow_unused": "flag",
    "check": "name",
}


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda problem, **arguments: function(**arguments)


def _step(**settings: Any) -> Callable[[Problem], dict[str, Any]]:
    def usual(problem: Problem) -> dict[str, Any]:
        optimizers = {"base_optimizer": problem.base, "hyper_optimizer": problem.hyper}
        return {
            **_bilevel(problem),
            **optimizers,
            "base_step": "after",
            "nan_policy": "raise",
            **settings,
        }

    return usual


def _with_results(call: Call, *names: str) -> Call:
    """Return a call in which losses return something else."""
    roles = dict.fromkeys(names, "result")
    return call._replace(name=f"{call.name}, losses", roles=roles)


def _dicts(problem: Problem) -> dict[str, Any]:
    return {
        "inner_loss": lambda p, h: ((p["w"] - h[:5]) ** 2).sum() + h[5] ** 2,
        "outer_loss": lambda p, h: (p["w"] ** 2).sum() + 0 * h.sum(),
        "params": problem.weights,
        "hyperparameters": problem.lam.detach(),
        "lr": 0.1,
        "steps": 2,
    }


def _learner(problem: Problem, **arguments: Any) -> Any:
    first_order = arguments.pop("clone_first_order", None)
    adapt_first_order = arguments.pop("adapt_first_order", None)
    inner = arguments.pop("inner_loss")
    meta = EvoGradMetaOptimizer(**arguments)
    learner = meta.clone(first_order=first_order)
    learner.adapt(inner, first_order=adapt_first_order)
    wanted = [problem.lam]
    return torch.autograd.grad(problem.outer(learner), wanted)


def _learners(problem: Problem) -> dict[str, Any]:
    found = _bilevel(problem)
    del found["outer_loss"]
    return {
        **found,
        "memory": "auto",
        "memory_limit": 2**20,
        "nan_policy": "raise",
        "clone_first_order": None,
        "adapt_first_order": None,
    }


def _tasks(problem: Problem, **arguments: Any) -> Any:
    meta = EvoGradMetaOptimizer(problem.model, 0.1, generator=problem.generator)
    pair = torch.stack([X, XQ]), torch.stack([Y, Y])
    arguments = {"support": pair, "query": pair, **arguments}
    return meta.task_losses(**arguments)


def _warp(problem: Problem, **arguments: Any) -> Any:
    inner = arguments.pop("inner_loss")
    meta = WarpGrad(problem.model, **arguments)
    learner = meta.clone()
    learner.adapt(lambda view: inner(view))
    warp = list(problem.model[3].parameters())
    return torch.autograd.grad(problem.outer(learner), warp)


def _aruba(problem: Problem, **arguments: Any) -> Any:
    inner, own = arguments.pop("inner_loss"), arguments.pop("clone_lr")
    plus = arguments.pop("plus")
    meta = ARUBA(problem.model, **arguments)
    learner = meta.clone(lr=own, plus=plus)
    learner.adapt(inner)
    return learner.rates()


def _buffer(problem: Problem, capacity: Any, learner: Any) -> Any:
    buffer = TrajectoryBuffer(capacity, generator=problem.generator)
    buffer.add(learner(problem) if callable(learner) else learner, "task")
    return []


def _signs(problem: Problem, **arguments: Any) -> Any:
    tensor = torch.ones(3)
    tensor.grad = torch.ones(3)
    SignDescent([tensor], **arguments).step()
    return tensor


def _momentum(w: Any, g: Any, s: Any, values: Any, step: int) -> Any:
    m = 0.5 * s["m"] + g
    return w - values["lr"] * m, {"m": m}


_RUN = {
    "inner_loss": "function",
    "outer_loss": "function",
    "params": "dict",
    "lr": "schedule",
    "momentum": "schedule",
    "weight_decay": "schedule",
    "steps": "count",
    "clip": "number:optional",
    "dampening": "flag",
    "allow_unused": "flag",
}


def _run(problem: Problem) -> dict[str, Any]:
    return {
        **_dicts(problem),
        "momentum": 0.5,
        "weight_decay": 0.01,
        "clip": 10.0,
        "dampening": False,
        "allow_unused": False,
    }


def _runs(function: Any) -> list[Call]:
    def called(problem: Problem, **arguments: Any) -> Any:
        found = function(**arguments)
        return [found.params, found.outer_loss, getattr(found, "gradients", None)]

    call = Call(function.__name__, called, _run, _RUN)
    if function is run_sgd:  # it does not differentiate the outer loss
        return [call, _with_results(call, "inner_loss")]
    return [call, _with_results(call, "inner_loss", "outer_loss")]


def _of_rule(problem: Problem, lr: Any, **arguments: Any) -> Any:
    found = forward_mode_of(_momentum, schedule={"lr": lr}, state=("m",), **arguments)
    return [found.params, found.gradients]


_step_call = Call(
    "bilevel_step",
    _called(bilevel_step),
    _step(),
    {
        **_BILEVEL,
        "lr": "rate",
        "base_optimizer": "optimizer",
        "hyper_optimizer": "optimizer",
        "base_step": "name",
        "nan_policy": "name",
    },
)
_early_call = _step_call._replace(
    name="bilevel_step, evolution before",
    usual=_step(update="evolution", estimator=None, base_step="before"),
)
_gradients_call = Call(
    "bilevel_gradients",
    lambda problem, **arguments: bilevel_gradients(**arguments).hypergradient,
    _bilevel,
    {**_BILEVEL, "lr": "rate"},
)
_module_call = Call(
    "hypergradient of a module",
    lambda problem, model, **arguments: (
        hypergradient(params=model, **arguments).gradients
    ),
    lambda problem: {
        **_bilevel(problem),
        "steps": 2,
        "first_order": None,
        "memory": "auto",
        "memory_limit": 2**20,
    },
    {
        **_BILEVEL,
        "lr": "rate",
        "steps": "count",
        "first_order": "flag",
        "memory": "name",
        "memory_limit": "count:0",
    },
)
_dict_call = Call(
    "hypergradient of a dict",
    lambda problem, **arguments: hypergradient(**arguments).gradients,
    _dicts,
    {
        "inner_loss": "function",
        "outer_loss": "function",
        "params": "dict",
        "lr": "number",
        "steps": "count",
    },
)
_reweighting_call = Call(
    "reweighting_step",
    _called(reweighting_step),
    lambda problem: {
        "model": problem.model,
        "sample_losses": lambda v: F.cross_entropy(v(X), Y, reduction="none"),
        "outer_loss": problem.outer,
        "base_optimizer": problem.base,
        "num_samples": 6,
        "generator": problem.generator,
        "nan_policy": "raise",
    },
    {
        "model": "model",
        "sample_losses": "function",
        "outer_loss": "function",
        "base_optimizer": "optimizer",
        "num_samples": "count",
        "generator": "generator",
        "nan_policy": "name",
    },
)
_learner_call = Call(
    "EvoGradMetaOptimizer",
    _learner,
    _learners,
    {
        **{k: v for k, v in _BILEVEL.items() if not k.endswith("_loss")},
        "lr": "number",
        "memory": "name",
        "memory_limit": "count:0",
        "nan_policy": "name",
        "clone_first_order": "flag",
        "adapt_first_order": "flag",
    },
)

CALLS: list[Call] = [
    _step_call,
    _with_results(_step_call, "inner_loss", "outer_loss"),
    _early_call,
    _with_results(_early_call, "inner_loss", "outer_loss"),
    _gradients_call,
    _module_call,
    _with_results(_module_call, "inner_loss", "outer_loss"),
    _dict_call,
    _with_results(_dict_call, "inner_loss", "outer_loss"),
    _reweighting_call,
    _with_results(_reweighting_call, "sample_losses", "outer_loss"),
    _learner_call,
    _with_results(_learner_call, "inner_loss"),
    Call(
        "task_losses",
        _tasks,
        lambda problem: {
            "loss": F.cross_entropy,
            "steps": 1,
            "chunk_size": 2,
        },
        {"loss": "function", "steps": "count:0", "chunk_size": "count:optional"},
    ),
    Call(
        "WarpGrad",
        _warp,
        lambda problem: {
            "lr": 0.1,
            "warp": "3",
            "init": "maml",
            "inner_loss": problem.outer,
            "first_order": False,
        },
        {
            "lr": "number",
            "warp": "tensors",
            "init": "name",
            "inner_loss": "result",
            "first_order": "flag",
        },
    ),
    Call(
        "ARUBA",
        _aruba,
        lambda problem: {
            "lr": 0.1,
            "zeta": 0.1,
            "rates": "coordinate",
            "p": 1.0,
            "inner_loss": problem.outer,
            "clone_lr": None,
            "plus": 0.0,
        },
        {
            "lr": "number",
            "zeta": "number",
            "rates": "name",
            "inner_loss": "result",
        },
    ),
    Call(
        "TrajectoryBuffer",
        _buffer,
        lambda problem: {
            "capacity": 2,
            "learner": lambda own: EvoGradMetaOptimizer(own.model, 0.1).clone(),
        },
        {"capacity": "count", "learner": "generator"},
    ),
    Call(
        "SignDescent",
        _signs,
        lambda problem: {"lr": 0.1, "decay": 0.5, "lower": 0.0, "upper": 2.0},
        {"lr": "step", "decay": "number"},
    ),
    Call(
        "forward_mode_of",
        _of_rule,
        lambda problem: {**_dicts(problem), "lr": 0.1},
        {
            "inner_loss": "function",
            "outer_loss": "function",
            "params": "dict",
            "lr": "schedule",
            "steps": "count",
        },
    ),
    *(
        call
        for function in (unrolled_sgd, forward_mode, reversible_sgd, greedy, run_sgd)
        for call in _runs(function)
    ),
]
