"""Small runs of every command, each of which takes some seconds, and how they end."""

import atexit
import functools
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faulty import Fault
from idx import write_digits
from same_numbers import outcome_of
from sessions import Session
from small_archives import photo
from small_omniglot import write_archives

# Seconds that a whole run may take on a busy machine.
WHOLE = 300.0

_NOISY = (
    *("noisy-labels", "--image-size", "16", "--iterations", "6", "--device", "cpu"),
    *("--train-images", "100", "--test-images", "50", "--batch-size", "20"),
    *("--meta-images", "20", "--methods", "baseline,evograd", "--seeds", "1"),
)
_CROSS = (
    *("crossdomain", "--image-size", "16", "--ways", "2", "--shots", "1"),
    *("--queries", "2", "--iterations", "4", "--save-every", "1", "--episodes", "4"),
    *("--pretrain-epochs", "1", "--methods", "none,lft-guided", "--device", "cpu"),
    *("--seeds", "1", "--unseen", "sketch", "--backbone", "cnn4"),
)
_SEARCH = (
    *("search", "rotation", "--space", "lr=0.001..0.1:log", "--fidelity", "1..9"),
    *("--set", "data={data}/mnist", "--set", "batch-size=8", "--fresh-seeds", "2"),
    *("--budget", "6"),
)


class Whole(NamedTuple):
    """An uninterrupted run.

    Attributes:
        seconds: how long it took.
        outcome: what came out.
    """

    seconds: float
    outcome: dict[str, Any]


class Run(NamedTuple):
    """A command line. ``{data}`` stands for the folder with data of the tests.

    Attributes:
        line: the command line without the folder it writes to.
        out: option that names the folder.
        resumes: whether the command has --resume.
        two: whether it runs in two processes.
    """

    line: Sequence[str]
    out: str = "--out"
    resumes: bool = True
    two: bool = False

    def start(self, out: Path) -> Session:
        """Start the command, or resume it if there is something to resume."""
        line = [word.replace("{data}", str(data())) for word in self.line]
        begun = (out / "settings.json").exists()
        if begun and self.resumes:
            line = [line[0], "--resume"]
        elif begun:
            line.append("--overwrite")
        return Session([*line, self.out, str(out)])

    def whole(self, out: Path) -> Whole:
        """Run the command to its end.

        Raises:
            Fault: if it fails.
        """
        began = time.monotonic()
        ended = self.start(out).end(WHOLE)
        if ended.code:
            raise Fault(f"{self.line}: {ended}")
        return Whole(time.monotonic() - began, outcome_of(out))


RUNS = {
    "crossdomain": Run(_CROSS),
    "crossdomain --workers 2": Run((*_CROSS, "--workers", "2")),
    "crossdomain --devices 2": Run((*_CROSS, "--devices", "2"), two=True),
    "fewshot": Run(
        (
            *("fewshot", "--methods", "fomaml,reptile", "--seeds", "1", "--ways", "2"),
            *("--gradients", "1", "--meta-batch", "2", "--steps", "2"),
            *("--test-steps", "2", "--tasks", "2", "--validation-tasks", "1"),
            *("--hidden", "4", "--queries", "5", "--test-queries", "2", "--shots", "3"),
            *("--train-shots", "8", "--reptile-steps", "2", "--batch-size", "16"),
            *("--omniglot", "{data}", "--device", "cpu"),
        )
    ),
    "illustrate": Run(("illustrate", "--trials", "20"), resumes=False),
    "noisy-labels": Run(_NOISY),
    "noisy-labels --devices 2": Run((*_NOISY, "--devices", "2"), two=True),
    # Every image of an archive waits for the disk: minutes on some machines.
    "prepare, archive": Run(
        ("prepare", "cub", "--archive", "{data}/CUB_200_2011.tgz"), resumes=False
    ),
    "prepare, folder": Run(
        ("prepare", "cub", "--archive", "{data}/birds/CUB_200_2011"), resumes=False
    ),
    "report": Run(("report", "{data}/crossdomain"), out="--to", resumes=False),
    "rotation": Run(
        (
            *("rotation", "--data", "{data}/mnist", "--iterations", "40"),
            *("--methods", "none,evograd", "--batch-size", "8", "--seeds", "2"),
        )
    ),
    "schedules": Run(
        (
            *("schedules", "--data", "{data}/mnist", "--methods", "constant,fds"),
            *("--seeds", "1", "--fresh-seeds", "2", "--steps", "10", "--windows", "2"),
            *("--batch-size", "8", "--budget", "600"),
        )
    ),
    "search": Run(_SEARCH),
    "search --workers 2": Run((*_SEARCH, "--workers", "2")),
}


@functools.cache
def data() -> Path:
    """Return a folder with the data of the runs, which are made once."""
    root = Path(tempfile.mkdtemp(prefix="whole-runs-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_digits(root / "mnist", "t10k", 60)
    write_digits(root / "mnist", "train", 300)
    write_archives(root, each=8)
    birds = root / "CUB_200_2011.tgz"
    _write_birds(birds)
    with tarfile.open(birds) as archive:
        archive.extractall(root / "birds")
    return root


@functools.cache
def whole_run(name: str) -> Whole:
    """Return how a run of RUNS ends without a fault; it is made once."""
    if name == "report" and not (data() / "crossdomain").exists():
        RUNS["crossdomain"].whole(data() / "crossdomain")
    return RUNS[name].whole(data() / f"whole {name}")


def _write_birds(path: Path) -> None:
    """Write CUB's archive with as many images as it has, all of them alike."""
    image = photo("bird", 1)
    names = [f"{c + 1:03}.Bird_{c}/{n}.jpg" for c in range(200) for n in range(58)]
    names += [f"{c + 1:03}.Bird_{c}/58.jpg" for c in range(188)]
    listing = "".join(f"{i} {name}\n" for i, name in enumerate(sorted(names), 1))
    files = {"images.txt": listing.encode()}
    files |= {f"images/{name}": image for name in names}
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"CUB_200_2011/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
