"""The few-shot experiment: several meta-learning algorithms with equal budgets.

For each seed, all methods start from the same network. They see tasks of the same
classes, and are tested on the same tasks of new classes.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from l2l_evograd.experiments import folder
from l2l_evograd.experiments.checkpoints import find_checkpoint
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.fewshot.evaluation import accuracies
from l2l_evograd.experiments.fewshot.images import ClassImages, Problem, Task, Tasks
from l2l_evograd.experiments.fewshot.making import make_algorithm, make_lessons
from l2l_evograd.experiments.fewshot.methods import METHODS, Method
from l2l_evograd.experiments.fewshot.module import FewShotModule
from l2l_evograd.experiments.fewshot.network import FewShotNet
from l2l_evograd.experiments.fewshot.pictures import draw_adaptation, draw_training
from l2l_evograd.experiments.fewshot.report import conclusions, results_table
from l2l_evograd.experiments.fewshot.results import FewShotResults
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.fewshot.sources import read_problem
from l2l_evograd.experiments.results import RunResults, half_interval
from l2l_evograd.experiments.training import train
from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.seeds import derive_seed, seeded

# Number of meta-iterations from which a budget of seconds is converted, besides one
# that warms up.
_PILOT = 3


class FewShotExperiment(Experiment[FewShotSettings]):
    """The few-shot experiment, in one process.

    Args:
        settings: settings of the run.
        out: folder of the run.
        console: console to print on.
        problem: the images; None: the images that the settings name.

    Raises:
        InputError: for images that cannot be read, or too few classes or images.
    """

    def __init__(
        self,
        settings: FewShotSettings,
        out: Path,
        console: Console,
        problem: Problem | None = None,
    ) -> None:
        settings = settings.resolved()
        super().__init__(settings, out, console)
        self.problem = read_problem(settings, console) if problem is None else problem
        # These calls refuse bad input before anything is trained.
        self._tests(settings.seed)
        self._validation(settings.seed)
        for method in settings.methods:
            make_lessons(METHODS[method], self.problem.train, settings, settings.seed)

    def announce(self) -> None:
        """Print what the run is going to do."""
        settings, problem, about = self.settings, self.problem, self._about
        budget = (
            f"{settings.seconds:g} s of process time"
            if settings.budget is None
            else f"{settings.budget:,} gradients"
        )
        classes = about["classes"]
        for line in (
            f"Few-shot, {problem.name}: {settings.ways}-way {settings.shots}-shot; "
            f"{classes['train']} classes for meta-training, {classes['validation']} "
            f"for validation, {classes['test']} for the test",
            f"{budget} for each method and seed, on {settings.device}; results in "
            f"{self.out}",
        ):
            say(self.console, line)

    def data(self) -> Sequence[Any]:
        """Return the images of all splits, in the order of their classes."""
        return [
            part
            for split in self.problem[1:]
            for part in (split.images, split.labels, list(split.label_names))
        ]

    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""
        return FewShotResults(self.out, self.settings, {"data": self._about})

    def start(self, seed: int) -> FewShotNet:
        """Return the untrained network of a seed."""
        channels, side = self.problem.shape
        with seeded(derive_seed(seed, "weights")):
            return FewShotNet(self.settings.ways, channels, side, self.settings.hidden)

    def one(self, seed: int, method: str, start: FewShotNet) -> dict[str, Any]:
        """Meta-train and test one method, and return its results."""
        settings, chosen = self.settings, METHODS[method]
        device = torch.device(settings.device)
        name = f"{seed}-{chosen.training}"
        module = self._module(chosen, start, seed, self._total(chosen, start, seed))
        saved = self._saved(chosen, seed)
        reused = saved is not None and len(saved["losses"]) >= module.total
        del saved
        spent = module.total * settings.gradients_per_iteration(chosen)
        self.say(
            seed,
            f"{method}: {chosen.summary}; {module.total} meta-iterations, "
            f"{spent:,} gradients",
        )
        with PeakMemory(device) as peak:
            train(
                module,
                name=name,
                out=self.out,
                device=device,
                console=self.console,
                identity=self._identity(chosen, seed),
            )
        module.to(device)  # Lightning has moved the module to the CPU
        tests = self._tests(seed)
        found = accuracies(
            module.algorithm,
            (tests.task(number) for number in range(settings.tasks)),
            settings.test_steps,
        )
        curve = found.mean(0).tolist()
        shown = f"{curve[-1]:.2%} after {settings.test_steps} steps"
        own = settings.steps_of(chosen)
        if own < settings.test_steps:
            shown = f"{curve[own]:.2%} after {own} steps, {shown}"
        self.say(seed, f"{method}: {shown}")
        return {
            "seed": seed,
            "method": method,
            "adaptation": curve,
            "half_intervals": [half_interval(a) for a in found.T.tolist()],
            # The share of query images of the validation tasks that got a wrong class.
            "validation_loss": 1 - module.curve[-1]["accuracy"],
            "iterations": module.total,
            "gradients": spent,
            "seconds": sum(module.seconds),
            "process_seconds": sum(module.process_seconds),
            "seconds_per_iteration": median(module.seconds),
            # A training that was shared took its memory elsewhere.
            "peak_memory_bytes": None if reused else peak.bytes,
            "curve": module.curve,
        }

    def draw(self, results: RunResults) -> None:
        """Draw the pictures of adaptation and of meta-training."""
        title = self._title
        draw_adaptation(results, title, self.out / folder.ADAPTATION)
        draw_training(results, title, self.out / folder.TRAINING)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table."""
        return results_table(rows, self.settings, f"Accuracy, {self._title}")

    def conclusions(self, results: RunResults) -> Sequence[str]:
        """Return what the results show in words."""
        return conclusions(results)

    @property
    def _title(self) -> str:
        name = Path(self.problem.name).name
        return f"{name}, {self.settings.ways}-way {self.settings.shots}-shot"

    @cached_property
    def _about(self) -> dict[str, Any]:
        """Return a description of the data."""
        splits = zip(("train", "validation", "test"), self.problem[1:], strict=True)
        channels, side = self.problem.shape
        return {
            "name": self.problem.name,
            "fingerprint": self.fingerprint,
            "channels": channels,
            "image_size": side,
            "classes": {name: len(set(split.labels)) for name, split in splits},
        }

    def _module(
        self, method: Method, start: FewShotNet, seed: int, total: int
    ) -> FewShotModule:
        settings = self.settings
        validation = self._validation(seed)
        tasks: list[Task] = [
            validation.task(number) for number in range(settings.validation_tasks)
        ]
        return FewShotModule(
            make_algorithm(method, copy.deepcopy(start), settings),
            make_lessons(
                method, self.problem.train, settings, derive_seed(seed, "train")
            ),
            total=total,
            meta_batch=settings.meta_batch,
            validation=tasks,
            steps=settings.steps_of(method),
            seed=seed,
        )

    def _total(self, method: Method, start: FewShotNet, seed: int) -> int:
        """Return the number of meta-iterations of a method.

        A budget of seconds is converted by the time of a few iterations. A run that is
        resumed keeps the number that it began with.
        """
        settings = self.settings
        if settings.budget is not None:
            return settings.budget // settings.gradients_per_iteration(method)
        saved = self._saved(method, seed)
        if saved is not None:
            return int(saved["planned"][0])
        pilot = self._module(method, start, seed, _PILOT + 1)
        pilot.to(torch.device(settings.device))
        optimizer = pilot.configure_optimizers()
        times = []
        for iteration in range(_PILOT + 1):
            began = time.process_time()
            pilot.meta_step(iteration, optimizer)
            times.append(time.process_time() - began)
        return max(1, int((settings.seconds or 0.0) / median(times[1:])))

    def _saved(self, method: Method, seed: int) -> Mapping[str, Any] | None:
        """Return the content of the checkpoint of a training, if there is one."""
        path = self.out / folder.CHECKPOINTS / f"{seed}-{method.training}.ckpt"
        found = find_checkpoint(path, self._identity(method, seed))
        return None if found is None else found.content

    def _identity(self, method: Method, seed: int) -> dict[str, Any]:
        """Return the training of a method, which others may share."""
        return self.identity(seed, training=method.training)

    def _tests(self, seed: int) -> Tasks:
        return self._held_out(self.problem.test, derive_seed(seed, "test"))

    def _validation(self, seed: int) -> Tasks:
        return self._held_out(self.problem.validation, derive_seed(seed, "validation"))

    def _held_out(self, split: ClassImages, seed: int) -> Tasks:
        settings = self.settings
        return Tasks(
            split,
            settings.ways,
            settings.shots,
            settings.test_queries,
            seed,
            ("ways", "the sum of shots and test_queries"),
        )
