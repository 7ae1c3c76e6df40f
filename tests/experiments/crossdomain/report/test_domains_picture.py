from pathlib import Path

from consoles import silent_console
from PIL import Image
from written import written_run

from l2l_evograd.experiments.crossdomain.report.command import report

ONE = {(0, "none"): [0.5, 0.7, 0.6], (0, "lft-evograd"): [0.6, 0.9, 0.7]}


def text_of(folders: list[Path], to: Path) -> str:
    report(folders, to=to, console=silent_console())
    return (to / "report.md").read_text(encoding="utf-8")


def test_the_picture_shows_every_comparison(tmp_path):
    folders = [
        written_run(tmp_path / "a", ONE),
        written_run(tmp_path / "b", {(0, "ft"): [0.3, 0.4]}, head="gnn"),
    ]
    sizes = []
    for count in (1, 2):
        text_of(folders[:count], tmp_path / "out")
        with Image.open(tmp_path / "out" / "domains.png") as picture:
            sizes.append(picture.height)
            colours = picture.convert("RGB").getcolors(10**7)
        assert colours is not None and len(colours) > 50
    assert sizes[1] > 1.5 * sizes[0]
