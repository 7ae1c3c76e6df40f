"""One check of a hypergradient: exact answer, estimate, and error messages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from l2l_evograd.bilevel import hypergradient
from l2l_evograd.estimators import Estimator, EvoGrad, Exact, Guided
from l2l_evograd.hyperparameters import name_of
from l2l_evograd.oracle.exact import (
    by_double_backward,
    import_higher,
    through_evolution,
    through_higher,
)
from l2l_evograd.oracle.fidelity import flat
from l2l_evograd.oracle.tolerance import Quantities, lowest_precision, usual_rtol
from l2l_evograd.oracle.unrolled import Unrolled
from l2l_evograd.replay.call_state import preserved_random_state
from l2l_evograd.seeds import draw_seed


@dataclass(frozen=True)
class Verification:
    """One comparison of an estimate with the exact answer, and its messages."""

    problem: Unrolled
    update: str
    estimator: Estimator
    draws: int
    rtol: float
    atol: float | None
    seed: int
    allow_unused: bool

    @property
    def random(self) -> bool:
        """Whether the estimates are random."""
        return self.update == "gradient" and self.estimator.random

    def exact(self) -> list[Tensor]:
        """Return g, one tensor for each of λ."""
        if self.update == "evolution" and isinstance(self.estimator, EvoGrad):
            source = self._generator()
            seeds = [draw_seed(source) for _ in range(self.problem.steps)]
            found = through_evolution(
                self.problem, self.estimator, seeds, self.allow_unused
            )
        elif higher_is_installed():
            found = through_higher(self.problem, self.allow_unused)
        else:
            found = by_double_backward(self.problem, self.allow_unused)
        vector = flat(found)
        if not bool(torch.isfinite(vector).all()) or float(vector.abs().max()) == 0:
            raise ValueError(
                "the exact hypergradient is 0 or not finite, so that nothing can be "
                "compared with it; check that the outer loss depends on the weights "
                "and the inner loss on the hyperparameters, or start from other values"
            )
        return found

    def margin(self, exact: Sequence[Tensor]) -> Tensor:
        """Return the allowed difference of each entry without noise, float64."""
        largest = [float(part.abs().max()) if part.numel() else 0.0 for part in exact]
        atol = self.rtol * max(largest) / 1000 if self.atol is None else self.atol
        return torch.cat(
            [
                torch.full((part.numel(),), atol + self.rtol * top, dtype=torch.float64)
                for part, top in zip(exact, largest, strict=True)
            ]
        )

    def estimates(self) -> Tensor:
        """Return the draws of ĝ, shape (N, d); N = 1 if nothing is random."""
        source = self._generator()
        count = self.draws if self.random else 1
        return torch.stack([self._estimate(source) for _ in range(count)])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _estimate(self, source: torch.Generator) -> Tensor:
        problem = self.problem
        with preserved_random_state(problem.devices):
            found = hypergradient(
                problem.inner_loss,
                problem.outer_loss,
                problem.model,
                problem.hyperparameters,
                lr=problem.lr,
                update=self.update,
                estimator=self.estimator,
                steps=problem.steps,
                first_order=False,
                generator=source,
                allow_unused=self.allow_unused,
            )
        return flat(found.gradients)

    def difference(self, compared: Quantities) -> str:
        """Return the message about the worst entry."""
        worst = int(compared.excess.argmax())
        expected, found, allowed, error = (
            float(values[worst])
            for values in (
                compared.expected,
                compared.found,
                compared.allowed,
                compared.errors,
            )
        )
        parts = f"atol + rtol * largest, rtol = {self.rtol:.3g}"
        mean = ""
        if self.random:
            parts += f", + {compared.factor:.2g} standard errors of {error:.3g}"
            mean = f", the mean of {self.draws} draws"
        wrong = int(compared.wrong.sum())
        return (
            f"the hypergradient by {self.estimator!r} differs from the exact one, with "
            f"update={self.update!r}, {self._steps()}.\n"
            f"The worst is {self._place(worst)}:\n"
            f"  expected {expected:.10g}, {self._origin()}\n"
            f"  found    {found:.10g}{mean}\n"
            f"  error    {abs(found - expected):.3g}\n"
            f"  allowed  {allowed:.3g} = {parts}\n"
            f"{wrong} of {len(compared.expected)} comparisons failed."
        )

    def indecision(self, compared: Quantities) -> str:
        """Return the message about a check that passed but shows nothing."""
        loosest = float((compared.allowed / compared.expected.abs()).min())
        remedy = "lower rtol and atol"
        if self.random:
            remedy = (
                "raise draws or the estimator's n_model_candidates, or check a "
                "smaller model: the noise grows with the number of weights"
            )
        return (
            f"the check of {self.estimator!r} is undecided: an answer of 0 would have "
            f"passed as well. The allowed difference is at least {loosest:.3g} times "
            f"the expected value; {remedy}."
        )

    def advice(self, exact: Sequence[Tensor], margin: Tensor) -> str:
        """Find out where the difference comes from, and return what to do."""
        if bool(((flat(self.exact()) - flat(exact)).abs() > margin).any()):
            return (
                "The exact answer itself was different when it was computed again: a "
                "loss reads something that changes from call to call, such as a "
                "counter, an iterator over data, numpy's random numbers or its own "
                "generator. Read it once, before the check, and not in the loss."
            )
        if self.update == "gradient" and not self.estimator.exact:
            base = usual_rtol(Exact(), self.update, self._precision())
            twin = replace(self, estimator=Exact(), rtol=base)
            gaps = (twin.estimates()[0] - flat(exact)).abs()
            if bool((gaps <= twin.margin(exact)).all()):
                return f"Exact() agrees, so the losses are correct. {self._tune()}"
        return (
            "A loss is not a function of only λ and the module that it is given. It "
            "must use the module's parameters through its argument. It must not write "
            "to tensors from outside, keep state, or draw from numpy or from its own "
            "generator. If the loss follows these rules, please report this."
        )

    def _tune(self) -> str:
        if isinstance(self.estimator, Guided):
            return (
                "The finite difference over h is too coarse here. If the cause is "
                "kinks (ReLU, max-pooling) or curvature within h, make h smaller. If "
                "it is rounding, make h larger or use the model in float64. If the "
                "network has kinks, rely on the realised descent of compare() instead "
                "of this check."
            )
        return (
            "The losses are too curved, or have kinks, within the reach of the "
            "perturbations: use a smaller sigma, with the model in float64."
        )

    def _precision(self) -> torch.dtype:
        return lowest_precision([*self.problem.weights, *self.problem.hyperparameters])

    def _steps(self) -> str:
        steps = self.problem.steps
        rate = "" if self.update == "evolution" else f"lr={self.problem.lr:g} and "
        return f"{rate}{steps} inner step{'' if steps == 1 else 's'}"

    def _origin(self) -> str:
        if self.update == "evolution":
            return "from autograd through Algorithm 1 at the same perturbations"
        if higher_is_installed():
            return "from higher"
        return "from double backward"

    def _place(self, position: int) -> str:
        """Name the entry of a hyperparameter at a position of flat()."""
        for number, tensor in enumerate(self.problem.hyperparameters):
            if position < tensor.numel():
                index = torch.unravel_index(torch.tensor(position), tensor.shape)
                place = ", ".join(str(int(i)) for i in index)
                name = name_of(tensor, self.problem.model, number)
                entry = f"entry [{place}] of " if place else ""
                return f"{entry}{name}, of shape {tuple(tensor.shape)}"
            position -= tensor.numel()
        return "the projection of the estimate on the direction of the exact answer"


def higher_is_installed() -> bool:
    """Say whether ``higher`` is installed and thus gives the exact answer."""
    try:
        import_higher()
    except ImportError:
        return False
    return True
