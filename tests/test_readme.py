import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

OUTSIDE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def test_the_readme_is_one_page():
    assert len(README.encode()) < 8 * 1024
    assert README.count("![") == 1


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_out_of_pages_that_the_site_does_not_check(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "#")):
            assert (ROOT / target.partition("#")[0]).exists(), target


def test_the_table_shows_what_the_benchmark_measured():
    records = json.loads(
        (ROOT / "benchmarks/results/accuracy_cpu.json").read_text(encoding="utf-8")
    )["records"]
    equal = [each for each in records if each["budget"] == "equal iterations"]
    problems = list(dict.fromkeys(each["problem"] for each in equal))
    section = README.split("| problem |")[1].split("\n\n")[0]
    rows = [line for line in section.splitlines()[2:] if line.startswith("|")]
    assert len(rows) == len(problems) == 8
    for problem, row in zip(problems, rows, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        found = {each["column"]: each for each in equal if each["problem"] == problem}
        plain = found["no learning"]["seconds_per_iteration"]
        columns = ("no learning", "Algorithm 1", "guided", "exact")
        for column, cell in zip(columns, cells, strict=True):
            record = found[column]
            value = record["mean"] * (100 if record["accuracy"] else 1)
            number = re.search(r"[\d.]+", cell)
            assert number is not None
            digits = len(number[0].partition(".")[2])
            assert number[0] == f"{value:.{digits}f}", (problem, column)
            assert cell.startswith("**") == record["shown"], (problem, column)
            if column != "no learning":
                times = record["seconds_per_iteration"] / plain
                shown = cell.rpartition("(")[2].rstrip(")")
                assert shown == (f"{times:.0f}" if times > 10 else f"{times:.1f}")


def test_lines_are_of_readable_length():
    pages = [ROOT / name for name in OUTSIDE] + sorted(ROOT.glob("docs/**/*.md"))
    for page in pages:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            table = line.lstrip()[:1] == "|"
            picture = line.startswith("![")
            assert len(line) <= 120 or table or picture, f"{page.name}:{number}"
