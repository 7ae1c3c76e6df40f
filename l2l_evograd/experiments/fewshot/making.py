"""Make the algorithm of a method, as the settings describe it."""

from collections.abc import Callable

from l2l_evograd.experiments.fewshot.algorithm import Algorithm, Lesson
from l2l_evograd.experiments.fewshot.images import ClassImages, Tasks
from l2l_evograd.experiments.fewshot.maml_family import ANIL, MAML, MetaSGD
from l2l_evograd.experiments.fewshot.methods import Method
from l2l_evograd.experiments.fewshot.network import FewShotNet
from l2l_evograd.experiments.fewshot.reptile_family import RatedReptile, Reptile
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.fewshot.warp_family import EvoGradWarped, Warped


def make_algorithm(
    method: Method, network: FewShotNet, settings: FewShotSettings
) -> Algorithm:
    """Return the algorithm of a method.

    Args:
        method: the method.
        network: the network at its initial weights. It becomes part of the algorithm.
        settings: settings of the run.
    """
    lr, meta_lr = settings.lr, settings.meta_lr
    if method.family == "reptile":
        lr, meta_lr = settings.reptile_lr, settings.reptile_meta_lr
        if method.training == "reptile":
            return Reptile(network, lr, meta_lr)
        rated = RatedReptile(network, lr, meta_lr, settings.zeta)
        rated.plus = settings.plus if method.name == "aruba++" else 0.0
        return rated
    if method.name == "evograd":
        return EvoGradWarped(network, lr, meta_lr, settings.warp)
    if method.family == "warp":
        return Warped(
            network,
            lr,
            meta_lr,
            settings.warp,
            settings.init,
            first_order=method.name != "warpgrad",
            frozen=method.name == "warpgrad-frozen",
        )
    if method.name in ("maml", "fomaml"):
        return MAML(network, lr, meta_lr, first_order=method.name == "fomaml")
    return (ANIL if method.name == "anil" else MetaSGD)(network, lr, meta_lr)


def make_lessons(
    method: Method, train: ClassImages, settings: FewShotSettings, seed: int
) -> Callable[[int], Lesson]:
    """Return a function from the number of a task to its lesson.

    Args:
        method: the method.
        train: images for meta-training.
        settings: settings of the run.
        seed: seed of the tasks. The tasks of all methods have the same classes.

    Raises:
        InputError: if there are too few classes, or too few images of a class.
    """
    steps, ways = settings.steps_of(method), settings.ways
    if method.family == "reptile":
        shots = settings.train_shots
        own = Tasks(train, ways, shots, 0, seed, ("ways", "train_shots"))
        size = settings.batch_size
        return lambda number: Lesson(own.minibatches(number, size, steps))
    tasks = Tasks(
        train, ways, settings.shots, settings.queries, seed, ("ways", "them together")
    )

    def lesson(number: int) -> Lesson:
        task = tasks.task(number)
        inner = [(task.support_x, task.support_y)] * steps
        return Lesson(inner, (task.query_x, task.query_y))

    return lesson
