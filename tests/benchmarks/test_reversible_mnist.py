import json

import pytest
import torch
from idx import write_digits

from benchmarks.reversible_mnist import AuthorsAdam, Config, draw_weights, main, split

SMALL = Config(
    steps=3, batch=5, iterations=2, images_steps=3, images_iterations=2, fresh=2
)


def test_schedules_and_images_are_learned_and_drawn(tmp_path, capsys):
    write_digits(tmp_path, "t10k", 60)
    json_path, picture = tmp_path / "new" / "mnist.json", tmp_path / "mnist.png"
    files = ["--json", str(json_path), "--picture", str(picture)]
    main(["--data", str(tmp_path), "--seeds", "2", *files], SMALL)
    content = json.loads(json_path.read_text())
    assert content["config"]["iterations"] == 2 and "data" not in content["config"]
    assert [s["seed"] for s in content["schedules"]] == [0, 1]
    for schedule in content["schedules"]:
        assert len(schedule["curve"]) == len(schedule["fresh"]) == 2
        assert len(schedule["rates"]) == len(schedule["momenta"]) == 3
        assert len(schedule["rates"][0]) == len(schedule["scales"]) == 8
        assert 0 <= schedule["fresh"][0]["held_out_error"] <= 1
        values = torch.tensor(schedule["rates"])
        assert not torch.allclose(values, torch.tensor(-1.0).exp())  # they were learned
    for images in content["images"]:
        assert len(images["curve"]) == 3 and len(images["fresh"]) == 2
        losses = [entry["validation_loss"] for entry in images["curve"]]
        assert losses[-1] < losses[0]
        assert [len(image) for image in images["images"]] == [784] * 10
    first, second = content["schedules"]
    assert first["curve"] != second["curve"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "schedule, seed 1, 1" in capsys.readouterr().out


def test_the_authors_optimizer_takes_the_steps_of_their_code():
    x = torch.tensor([1.0, 1.0])
    optimizer = AuthorsAdam([x], rate=0.04)
    gradient = torch.tensor([3.0, -0.5])
    optimizer.step([gradient])
    first = 0.04 * gradient / (gradient.abs() + 1e-4)
    torch.testing.assert_close(x, 1 - first)
    optimizer.step([gradient])
    # The first moment is nearly the gradient, and is divided by 1 - 0.9² all the same.
    moment = (1 - 0.9e-4) * gradient + 0.9e-4 * 0.1 * gradient
    second = 0.04 * moment / 0.19 / (gradient.abs() + 1e-4)
    torch.testing.assert_close(x, 1 - first - second)
    assert second.abs() / first.abs() == pytest.approx([5.26, 5.26], rel=0.01)


def test_digits_are_divided_and_centred():
    images = torch.randint(256, (50, 28, 28), dtype=torch.uint8)
    labels = torch.arange(50) % 10
    data = split(images, labels, 0.2)
    assert data.x.shape == (40, 784) and data.held_out_x.shape == (10, 784)
    torch.testing.assert_close(data.x.mean(0), torch.zeros(784), rtol=0, atol=1e-5)
    # Every digit is there once, with its label.
    x = torch.cat([data.x, data.held_out_x])
    sums = (x - x.mean(0)).sum(1)
    own = images.flatten(1).float() / 255
    expected = (own - own.mean(0)).sum(1)
    order = expected.argsort()
    torch.testing.assert_close(sums.sort().values, expected[order], rtol=0, atol=1e-3)
    y = torch.cat([data.y, data.held_out_y])
    assert y[sums.argsort()].tolist() == labels[order].tolist()
    assert y.tolist() != labels.tolist()  # in another order


def test_the_networks_are_the_papers():
    params = draw_weights(torch.Generator().manual_seed(0))
    shapes = [tuple(params[f"weights{layer}"].shape) for layer in range(4)]
    assert shapes == [(784, 50), (50, 50), (50, 50), (50, 10)]
    assert (Config.steps, Config.batch, Config.iterations) == (100, 200, 50)
    assert (Config.images_steps, Config.images_iterations) == (40, 20)
