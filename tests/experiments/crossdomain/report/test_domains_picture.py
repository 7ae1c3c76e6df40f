from PIL import Image
from reports import ONE, text_of
from written import written_run


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
