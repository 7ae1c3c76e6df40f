import pytest

from l2l_evograd.experiments.crossdomain.report.published import (
    accuracies,
    costs,
    published,
    published_costs,
)

DOMAINS = ("cub", "cars", "places", "plantae")

# As printed: shots, head, backbone, method | mean and interval on each of DOMAINS.
PRINTED = """
1 relationnet resnet10 none            | 44.33 .59 | 29.53 .45 | 47.76 .63 | 33.76 .52
1 relationnet resnet10 ft              | 44.67 .58 | 30.38 .47 | 48.40 .64 | 35.40 .53
1 relationnet resnet10 lft-exact       | 48.38 .63 | 32.21 .51 | 50.74 .66 | 35.00 .52
1 relationnet resnet10 lft-exact rerun | 46.03 .60 | 31.50 .49 | 49.29 .65 | 36.34 .59
1 relationnet resnet10 lft-evograd     | 47.39 .61 | 32.51 .56 | 50.70 .66 | 36.00 .56
1 relationnet resnet34 none            | 45.61 .59 | 29.54 .46 | 48.87 .65 | 35.03 .54
1 relationnet resnet34 ft              | 45.15 .59 | 30.28 .44 | 49.96 .66 | 35.69 .54
1 relationnet resnet34 lft-evograd     | 45.97 .60 | 33.21 .54 | 50.76 .67 | 38.23 .58
5 relationnet resnet10 none            | 62.13 .74 | 40.64 .54 | 64.34 .57 | 46.29 .56
5 relationnet resnet10 ft              | 63.64 .77 | 42.24 .57 | 65.42 .58 | 47.81 .51
5 relationnet resnet10 lft-exact       | 64.99 .54 | 43.44 .59 | 67.35 .54 | 50.39 .52
5 relationnet resnet10 lft-exact rerun | 65.94 .56 | 43.88 .56 | 65.57 .57 | 51.43 .55
5 relationnet resnet10 lft-evograd     | 64.63 .56 | 42.64 .58 | 66.54 .57 | 52.92 .57
5 relationnet resnet34 none            | 63.33 .59 | 40.50 .55 | 64.94 .56 | 50.20 .55
5 relationnet resnet34 ft              | 62.48 .56 | 41.06 .52 | 64.39 .57 | 50.08 .55
5 relationnet resnet34 lft-evograd     | 66.40 .56 | 44.25 .55 | 67.23 .56 | 52.47 .56
1 gnn         resnet10 none            | 45.69 .68 | 31.79 .51 | 53.10 .80 | 35.60 .56
1 gnn         resnet10 ft              | 47.47 .75 | 31.61 .53 | 55.77 .79 | 35.95 .58
5 gnn         resnet10 none            | 62.25 .65 | 44.28 .63 | 70.84 .65 | 52.53 .59
5 gnn         resnet10 ft              | 66.98 .68 | 44.90 .64 | 73.94 .67 | 53.85 .62
"""
LINES = PRINTED.strip().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_every_figure_is_the_printed_one(line: str):
    setting, *pairs = line.split("|")
    shots, head, backbone, method, *rerun = setting.split()
    for domain, pair in zip(DOMAINS, pairs, strict=True):
        figures = [
            figure
            for figure in published(head, backbone, 5, int(shots), domain)
            if figure.method == method and bool(figure.note) == bool(rerun)
        ]
        mean, interval = map(float, pair.split())
        assert [(one.mean, one.interval) for one in figures] == [(mean, interval)]


def test_there_are_no_other_figures():
    assert len(accuracies()) == 4 * len(LINES) == 80
    assert len(costs()) == 4


def test_every_figure_says_where_it_is_from():
    figures = published("relationnet", "resnet10", 5, 5, "cub")
    assert [figure.method for figure in figures] == [
        *("none", "ft", "lft-exact", "lft-exact", "lft-evograd")
    ]
    exact, rerun, evograd = figures[2:]
    assert exact.source.startswith("FWT") and "quoted by EvoGrad" in exact.source
    assert rerun.source.startswith("EvoGrad") and rerun.note == "EvoGrad authors' rerun"
    assert evograd.source.startswith("EvoGrad") and "Table 3" in evograd.source
    assert {figure.training for figure in figures} == {"leave-one-out"}
    (gnn, _) = published("gnn", "resnet10", 5, 1, "cars")
    assert gnn.training == "mini only" and "StyleAdv" in gnn.source
    (large, *_) = published("relationnet", "resnet34", 5, 1, "cars")
    assert large.source.startswith("EvoGrad")


@pytest.mark.parametrize(
    "setting",
    [
        ("relationnet-mse", "resnet10", 5, 5, "cub"),
        ("protonet", "resnet10", 5, 5, "cub"),
        ("relationnet", "resnet18", 5, 5, "cub"),
        ("gnn", "resnet34", 5, 5, "cub"),
        ("relationnet", "resnet10", 20, 5, "cub"),
        ("relationnet", "resnet10", 5, 2, "cub"),
        ("relationnet", "resnet10", 5, 5, "sketch"),
    ],
)
def test_of_other_settings_nothing_is_known(setting: tuple[str, str, int, int, str]):
    assert published(*setting) == []


def test_the_costs_are_those_of_figure_3():
    five = published_costs("relationnet", "resnet10", 5, 5)
    assert [(c.method, c.gigabytes, c.seconds_per_epoch) for c in five] == [
        ("lft-evograd", 5.3, 115.8),
        ("lft-exact", 8.5, 254.7),
    ]
    one_shot = published_costs("relationnet", "resnet10", 5, 1)
    assert [(c.method, c.gigabytes, c.seconds_per_epoch) for c in one_shot] == [
        ("lft-evograd", 4.8, 92.3),
        ("lft-exact", 8.3, 167.3),
    ]
    assert five[0].seconds_per_iteration == pytest.approx(1.158)
    assert published_costs("relationnet", "resnet34", 5, 5) == []
