import json
import re

from reports import ONE, shown, table, text_of
from written import summary, written_run


def test_the_figures_are_those_of_the_runs(tmp_path):
    cub = written_run(tmp_path / "a", ONE)
    both = {(seed, "none"): [0.8, 0.9, 0.5 + 0.1 * seed] for seed in (0, 1)}
    cars = written_run(tmp_path / "b", both, unseen="cars", seeds=2)
    header, none, evograd, *_ = table(text_of([cub, cars], tmp_path / "out"))
    assert header == ["method", "cars", "cub", "mean", "seeds"]
    of_cars, of_cub = summary(cars), summary(cub)
    mean = (of_cars["none"]["accuracy"] + of_cub["none"]["accuracy"]) / 2
    assert none == [
        *("none", shown(of_cars["none"]), shown(of_cub["none"])),
        *(f"{100 * mean:.2f}", "1 to 2"),
    ]
    assert "(sd " in none[1]
    assert evograd == ["lft-evograd", "", shown(of_cub["lft-evograd"]), "", "1"]


def test_published_figures_stand_beneath_in_italics_with_their_source(tmp_path):
    folders = [
        written_run(tmp_path / name, ONE, unseen=name) for name in ("cub", "cars")
    ]
    text = text_of(folders, tmp_path / "out")
    rows = table(text)[3:]
    assert rows[0] == [
        *("*none, published [1]*", "*40.64 ± 0.54*", "*62.13 ± 0.74*"),
        *("*51.39*", ""),
    ]
    assert [row[0] for row in rows] == [
        "*none, published [1]*",
        "*ft, published [1]*",
        "*lft-exact, published [1]*",
        "*lft-exact, published [2]*",
        "*lft-evograd, published [3]*",
    ]
    assert rows[3][1:3] == ["*43.88 ± 0.56*", "*65.94 ± 0.56*"]
    assert "- [1] FWT (Tseng et al., ICLR 2020), as quoted by EvoGrad" in text
    assert "leave-one-out, 224 px and 40,000 iterations; EvoGrad authors' rerun" in text


def test_without_published_figures_there_are_no_such_rows(tmp_path):
    folder = written_run(tmp_path / "a", ONE, head="protonet")
    text = text_of([folder], tmp_path / "out")
    assert len(table(text)) == 3 and ", published" not in text and "[1]" not in text


def test_one_domain_has_no_mean(tmp_path):
    text = text_of([written_run(tmp_path / "a", ONE)], tmp_path / "out")
    assert table(text)[0] == ["method", "cub", "seeds"]


def test_costs_have_the_units_of_ones_own_and_of_the_publications(tmp_path):
    folder = written_run(tmp_path / "a", {(1, "none"): [0.5, 0.7]}, seed=1)
    header, own, evograd, exact = table(text_of([folder], tmp_path / "out"), 1)
    assert header == [
        *("method", "device", "s/iteration", "s/100 iterations"),
        *("peak memory, MiB", "GB"),
    ]
    assert own == ["none", "cpu", "0.500", "50.0", "1,907", "2.00"]
    assert evograd == [
        *("*lft-evograd, published [1]*", "*Titan X*", "*1.158*", "*115.8*"),
        *("", "*5.3*"),
    ]
    assert exact[3:] == ["*254.7*", "", "*8.5*"]


def test_kinds_of_runs_have_tables_of_their_own(tmp_path):
    folders = [
        written_run(tmp_path / "a", ONE),
        written_run(tmp_path / "b", ONE, lr=0.01),
        written_run(tmp_path / "c", ONE, head="gnn", shots=1),
    ]
    text = text_of(folders, tmp_path / "out")
    assert re.findall("^## (.*)", text, re.MULTILINE)[:3] == [
        "1. 5-way 5-shot, relationnet, resnet10, 224 px, 40,000 iterations, lr = 0.001",
        "2. 5-way 5-shot, relationnet, resnet10, 224 px, 40,000 iterations, lr = 0.01",
        "3. 5-way 1-shot, gnn, resnet10, 224 px, 40,000 iterations",
    ]
    assert table(text, 2)[3][:2] == ["*none, published [1]*", "*45.69 ± 0.68*"]
    assert "StyleAdv (Fu et al., CVPR 2023); mini only" in text
    costs = table(text, 3)
    numbers = ["table", "1", "1", "2", "2", "3", "3", "*1, 2*", "*1, 2*"]
    assert [row[0] for row in costs] == numbers


def test_links_start_from_the_report(tmp_path):
    folder = written_run(tmp_path / "runs" / "my run_1", ONE, seeds=2)
    (folder / "accuracy.png").write_bytes(b"")
    text = text_of([folder], tmp_path / "out" / "here")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links == [
        "domains.png",
        "../../runs/my%20run_1",
        "../../runs/my%20run_1/accuracy.png",
    ]
    assert "my run_1]" in text
    assert "seeds 0, 1; not finished: none of seed 1, lft-evograd of seed 1" in text


def test_names_of_domains_do_not_break_the_tables(tmp_path):
    folder = written_run(tmp_path / "a", ONE, unseen="a|b*c_d_")
    assert "| method | a\\|b\\*c_d\\_ | seeds |" in text_of([folder], tmp_path / "out")


def test_numbers_in_json_and_markdown_are_the_same(tmp_path):
    folder = written_run(tmp_path / "a", ONE)
    content = json.loads((folder / "results.json").read_text())
    text = text_of([folder], tmp_path / "out")
    for run in content["runs"]:
        assert f"| {run['method']} | {100 * run['accuracy']['mean']:.2f} ±" in text
