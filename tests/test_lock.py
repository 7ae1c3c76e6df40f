import os
import signal

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.lock import locked


@pytest.fixture
def holder(tmp_path):
    """The number of a process that holds the lock on a folder until it is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path / "run"):
            os.write(write, b" ")
            signal.pause()
        os._exit(0)
    os.read(read, 1)
    yield child
    os.close(read), os.close(write)


def test_a_folder_is_made_and_goes_if_nothing_was_written(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_stays(tmp_path):
    with locked(tmp_path / "a"):
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()  # somebody else made it


def test_a_second_run_is_refused_until_the_first_ends(holder, tmp_path):
    with pytest.raises(InputError, match="another run is writing to .*run: wait until"):
        with locked(tmp_path / "run"):
            pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with locked(tmp_path / "run"):
        pass


def test_the_same_process_is_refused_as_well(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(InputError, match=r"choose another folder \(folder\)"):
            with locked(tmp_path / "b" / ".." / "run", "folder"):
                pass
    with locked(tmp_path / "run"):
        pass


def test_a_child_process_does_not_hold_the_lock(tmp_path):
    read, write = os.pipe()
    with locked(tmp_path / "run"):
        child = os.fork()
        if child == 0:
            os.read(read, 1)
            os._exit(0)
    with locked(tmp_path / "run"):
        pass
    os.write(write, b" ")
    os.waitpid(child, 0)
    os.close(read), os.close(write)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/run \(Not a dir"):
        with locked(tmp_path / "file" / "run"):
            pass
