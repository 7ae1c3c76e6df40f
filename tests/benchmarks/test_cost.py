import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import (
    algorithms,
    betty_methods,
    learn2learn_methods,
    maml_tasks,
    methods,
    torchopt_methods,
)
from benchmarks.cost import difference_of, main, measure, work_here
from benchmarks.cost_configs import (
    CONFIGS,
    Config,
    family_of,
    method_on_new_problem,
)
from benchmarks.cost_records import CostRecord, line_of
from benchmarks.maml_tasks import MamlConfig
from benchmarks.problems import Bilevel, TransformsConfig, WeightNetConfig

SMOKE = CONFIGS["smoke"]
PROBLEMS = dict(SMOKE.problems)
TASK = MamlConfig(2, 2, 2, 2, image_size=16, hidden=4)
UNFIT = "learn2learn, first order"
SECOND_ORDER = (
    "second order (higher)",
    "exact",
    "learn2learn, second order",
    "TorchOpt, unrolled",
)
ALL_EXACT = (*SECOND_ORDER, "exact, forward mode", "exact, double backward")
ALL = {
    **methods.METHODS,
    **learn2learn_methods.METHODS,
    **torchopt_methods.METHODS,
    **betty_methods.METHODS,
}
MAML = {
    **maml_tasks.METHODS,
    **torchopt_methods.MAML_METHODS,
    **betty_methods.MAML_METHODS,
}
# Algorithms learn different things, so their gradients are not compared.
OF_ALGORITHMS = algorithms.METHODS.keys() - maml_tasks.METHODS.keys()


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def iterated(config, name: str) -> dict[str, torch.Tensor]:
    """The hypergradient of one iteration, and the gradients given to the optimizers.

    New weights are left out: Adam makes a whole step along a gradient that differs from
    0 only by rounding.
    """
    family = family_of(config)
    problem = family.build(config, torch.device("cpu"), torch.contiguous_format)
    torch.manual_seed(1)  # of feature-wise noise
    found = {"hypergradient": flat(family.methods[name](problem))}
    if isinstance(problem, Bilevel):
        # The gradient of the base step depends on the new λ if λ's step comes first.
        found["base gradient"] = flat(weight.grad for weight in problem.weights)
        found["hyperparameters"] = flat(problem.hyperparameters)
    return found


def smooth(lr: float) -> Bilevel:
    """Weights of samples, in a network without kinks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x, meta_x = torch.randn(2, 12, 4)
    y, meta_y = torch.randint(3, (2, 12))
    held = nn.ParameterList([nn.Parameter(0.1 * torch.randn(12))])

    def inner(view: nn.Module) -> torch.Tensor:
        losses = F.cross_entropy(view(x), y, reduction="none")
        return (torch.sigmoid(held[0]) * losses).mean()

    def outer(view: nn.Module) -> torch.Tensor:
        return F.cross_entropy(view(meta_x), meta_y)

    return Bilevel(
        model,
        inner,
        outer,
        [held[0]],
        torch.optim.SGD(model.parameters(), lr=lr),
        torch.optim.SGD(held.parameters(), lr=0.1),
        lr=lr,
        base_step="after",
        outside=held,
    )


def cosine(one, other) -> float:
    return float(torch.cosine_similarity(flat(one), flat(other), dim=0))


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_method_is_measured(name):
    records = measure(replace(SMOKE, problems=((name, PROBLEMS[name]),)))
    family = family_of(PROBLEMS[name])
    methods = [m for m in family.methods if m in SMOKE.methods]
    assert [(record.problem, record.method) for record in records] == [
        (name, method) for method in methods
    ]
    failed = [record.method for record in records if record.seconds is None]
    bilevel = isinstance(PROBLEMS[name], WeightNetConfig | TransformsConfig)
    assert failed == ([UNFIT] if bilevel else [])
    for record in records:
        if record.method in failed:
            assert "a first-order step is a constant" in record.error
            assert record.peak_bytes is None
        else:
            assert 0 < record.fastest <= record.seconds <= record.slowest
            assert record.peak_bytes >= 0 and record.error is None
            assert record.passes >= 3 or "first order" in record.method
        if record.method == "plain":
            assert record.times_plain == 1 and record.passes == 3
        if record.method in ("plain", *failed, *OF_ALGORITHMS):
            assert record.difference is None
        elif "first order" in record.method or "Algorithm 1" in record.method:
            assert record.difference > 0.01
        elif record.method in ALL_EXACT or "at once, second" in record.method:
            assert record.difference < 1e-3
    (reference,) = (r for r in records if r.method == family.reference)
    assert reference.difference == 0


def test_every_benchmarked_method_is_in_the_smoke_configuration():
    known = {m for _, problem in SMOKE.problems for m in family_of(problem).methods}
    assert {*ALL, *MAML} < known and known - {*SMOKE.methods} == {
        "evograd, K = 32",
        "Algorithm 1, K = 8",
        "Algorithm 1, K = 32",
    }


def test_records_are_printed_written_and_drawn(tmp_path, capsys):
    json_path, picture = tmp_path / "new" / "cost.json", tmp_path / "cost.png"
    kept = ("plain", UNFIT)
    left_out = [method for method in SMOKE.methods if method not in kept]
    options = ["--json", str(json_path), "--picture", str(picture)]
    main(["--config", "smoke", *options, "--leave-out", *left_out])
    content = json.loads(json_path.read_text())
    written = [(r["problem"], r["method"]) for r in content["records"]]
    assert written == [
        (name, method)
        for name in PROBLEMS
        for method in kept
        if method in family_of(PROBLEMS[name]).methods
    ]
    environment = content["environment"]
    assert {"torch", "higher", "torchopt", "betty-ml", "learn2learn"} <= set(
        environment
    )
    assert environment["threads"] == SMOKE.threads
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(name in printed for name in PROBLEMS)
    assert f"{UNFIT} fails: NotImplementedError" in printed
    lines = [line for line in printed.splitlines() if " | " in line]
    assert [tuple(line.split(":")[0].split(" | ")) for line in lines] == written


def test_each_record_is_written_before_the_next_is_measured(tmp_path, monkeypatch):
    path = tmp_path / "cost.json"
    counts = []

    def counted(*arguments, **options):
        counts.append(len(json.loads(path.read_text())["records"]) if counts else 0)
        yield from work_here(*arguments, **options)

    monkeypatch.setattr("benchmarks.cost.work_here", counted)
    kept = ("plain", "exact")
    left_out = [method for method in SMOKE.methods if method not in kept]
    options = ["--problem", "MAML", "--json", str(path), "--leave-out", *left_out]
    main(["--config", "smoke", *options])
    assert counts == [0, 1]
    content = json.loads(path.read_text())
    assert [r["difference"] for r in content["records"]] == [None, None]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("config", [*(c for _, c in SMOKE.problems[:2]), TASK])
def test_exact_methods_do_the_same_work(config):
    first = iterated(config, SECOND_ORDER[0])
    assert first["hypergradient"].norm() > 0
    for method in ALL_EXACT[1:]:
        if method not in family_of(config).methods:
            continue
        found = iterated(config, method)
        assert found.keys() == first.keys()
        for part, value in found.items():
            scale = float(first[part].abs().max())
            error = float((value - first[part]).abs().max())
            assert error < 1e-9 * scale, (method, part)


@pytest.mark.usefixtures("float64")
def test_a_method_may_be_called_again_and_on_another_problem():
    for name, method in ALL.items():
        if name == UNFIT:
            continue
        problem, other = smooth(0.1), smooth(0.1)
        torch.manual_seed(1)
        first = method(problem)
        before = flat(problem.weights)
        second = method(problem)
        assert not torch.equal(before, flat(problem.weights)), name
        torch.manual_seed(1)
        again = method(other)
        if name != "plain":
            assert not torch.equal(flat(first), flat(second)), name
            assert torch.equal(flat(first), flat(again)), name


@pytest.mark.usefixtures("float64")
def test_finite_differences_of_betty_are_those_of_guided():
    darts = ALL["Betty, darts"](smooth(0.01))
    for ours in ("guided, central", "guided, forward"):
        assert cosine(darts, ALL[ours](smooth(0.01))) > 0.9999
    ratio = flat(darts).norm() / flat(ALL["guided, central"](smooth(0.01))).norm()
    assert float(ratio) == pytest.approx(1, rel=0.01)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["Betty, sama", "Betty, neumann", "Betty, cg"])
def test_other_estimates_of_betty_point_where_the_exact_one_does(name):
    exact = ALL["exact"](smooth(0.01))
    assert cosine(ALL[name](smooth(0.01)), exact) > 0.9


@pytest.mark.usefixtures("float64")
def test_the_implicit_gradient_tends_to_that_of_the_step():
    errors = []
    for lr in (0.1, 0.01):
        exact = flat(ALL["exact"](smooth(lr)))
        implicit = flat(ALL["TorchOpt, implicit"](smooth(lr)))
        errors.append(float((implicit - exact).norm() / exact.norm()))
    assert errors[0] < 0.05 and errors[1] < 0.15 * errors[0]


@pytest.mark.usefixtures("float64")
def test_both_implementations_of_implicit_maml_agree():
    one, other = (
        iterated(TASK, name)["hypergradient"]
        for name in ("Betty, cg", "TorchOpt, implicit")
    )
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(one, iterated(TASK, "exact")["hypergradient"], rtol=1e-3)


@pytest.mark.usefixtures("float64")
def test_first_order_is_that_of_learn2learn():
    ours, theirs, exact = (
        iterated(TASK, name)["hypergradient"]
        for name in ("first order", UNFIT, "exact")
    )
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(ours, exact, rtol=1e-3)


def test_a_plain_step_that_fails_is_an_error():
    # Batch normalisation takes more than a single value of each channel.
    small = ("one pixel", WeightNetConfig("small", batch_size=1, image_size=1))
    config = Config((small,), ("plain",), 1, fresh=False)
    with pytest.raises(RuntimeError, match="plain step of one pixel.*ValueError"):
        measure(config)
    without = replace(SMOKE, methods=("exact",))
    with pytest.raises(RuntimeError, match="plain step.*not among the methods"):
        measure(without)


def test_memory_and_operations_are_measured_in_a_process_of_their_own():
    kept = replace(
        SMOKE,
        problems=(("MAML", PROBLEMS["MAML, narrow"]),),
        methods=("plain", "learn2learn, second order", "exact"),
        fresh=True,
    )
    for record in measure(kept):
        assert record.error is None and record.passes >= 3
        assert record.peak_bytes > 0
        assert record.difference is None or record.difference < 1e-3


def test_a_difference_is_relative():
    exact = torch.tensor([3.0, 4.0])
    assert difference_of(2 * exact, exact) == pytest.approx(1)
    assert difference_of(None, exact) is None and difference_of(exact, None) is None


def test_a_line_shows_what_is_known():
    line = line_of(CostRecord("p", "m", 1.0, 0.5, 2.0, 3.0, None, "cut off", None))
    assert line == (
        "p | m: seconds 1.000, fastest 0.500, slowest 2.000, x plain 3.00; "
        "m is incomplete: cut off"
    )


@pytest.mark.parametrize(
    ("method", "layout", "last"),
    [
        ("exact", None, True),
        ("exact, forward mode", None, True),
        ("exact, double backward", None, False),
        ("exact, double backward", "channels_last", True),
        ("exact", "contiguous", False),
    ],
)
def test_each_method_gets_its_layout(method, layout, last):
    config = PROBLEMS["LFT, CNN4"]
    call = method_on_new_problem(config, method, torch.device("cpu"), layout)
    (problem,) = call.args
    kernels = [p for p in problem.model.parameters() if p.dim() == 4 and p.shape[2] > 1]
    ordered = [p.is_contiguous(memory_format=torch.channels_last) for p in kernels]
    assert ordered and all(found == last for found in ordered)


def test_the_default_is_of_the_sizes_asked_for():
    weight_net, transforms, *maml = (
        problem
        for name in ("default", "maml-steps")
        for _, problem in CONFIGS[name].problems
    )
    assert (weight_net.network, weight_net.batch_size) == ("resnet32", 100)
    assert (transforms.backbone, transforms.image_size) == ("resnet10", 84)
    assert (transforms.ways, transforms.shots, transforms.queries) == (5, 5, 16)
    assert [task.steps for task in maml] == [1, 5, 10]
    large = CONFIGS["lft-large"].problems
    sizes = {(config.backbone, config.image_size) for _, config in large}
    assert sizes == {
        *((f"resnet{depth}", 224) for depth in (10, 18, 34)),
        *((f"resnet{depth}", 84) for depth in (18, 34)),
    }


def test_an_unknown_problem_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--config", "smoke", "--problem", "rotation"])
    assert "beginning of a problem's name, got 'rotation'" in capsys.readouterr().err
