"""Write files and folders so that a failure, a kill or a power cut leaves the old or the new content."""

import errno
import os
from pathlib import Path

import pytest

from pipeline_landscape_video.atomic_writing import check_replaceable, write_directory, write_file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "clip.mp4"
    with write_file(path) as unfinished:
        unfinished.write_text("old")
        assert unfinished.suffix == ".mp4" and not path.exists()
    with pytest.raises(KeyboardInterrupt), write_file(path) as unfinished:
        unfinished.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == {"clip.mp4"}
    with write_file(path) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == {"clip.mp4"}


def test_two_processes_may_write_one_file(tmp_path):
    path = tmp_path / "figures.npz"
    with write_file(path) as first, write_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and names(tmp_path) == {"figures.npz"}  # the block that ended last


def test_content_is_on_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    happened = []
    replace, sync = Path.replace, os.fsync

    def record_sync(descriptor):
        happened.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        sync(descriptor)

    def record_replace(self, target):
        happened.append("replaced")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    with write_file(tmp_path / "status.json") as unfinished:
        unfinished.touch()
    assert happened == [unfinished, "replaced", tmp_path]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "status.json").write_text("old")

    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"), write_file(tmp_path / "status.json") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "status.json").read_text() == "old" and names(tmp_path) == {"status.json"}
    with pytest.raises(OSError, match="No space left"), write_directory(tmp_path / "adapter") as directory:
        (directory / "weights").touch()
    assert names(tmp_path) == {"status.json"}


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with write_directory(tmp_path / "adapter") as directory:
            (directory / content).write_text(content)
    assert names(tmp_path / "adapter") == {"new"} and names(tmp_path) == {"adapter"}
    with pytest.raises(RuntimeError), write_directory(tmp_path / "adapter") as directory:
        raise RuntimeError
    assert names(tmp_path / "adapter") == {"new"} and names(tmp_path) == {"adapter"}


def test_what_was_there_comes_back_where_the_last_rename_fails_or_never_came(tmp_path, monkeypatch):
    with write_directory(tmp_path / "adapter") as directory:
        (directory / "old").touch()
    with monkeypatch.context() as patch:
        rename = Path.rename
        refuses = {".adapter.incomplete"}

        def refuse(self, target):
            if self.name in refuses:
                raise OSError("no")
            return rename(self, target)

        patch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="no"), write_directory(tmp_path / "adapter") as directory:
            (directory / "new").touch()
    assert names(tmp_path / "adapter") == {"old"} and names(tmp_path) == {"adapter"}
    (tmp_path / "adapter").rename(tmp_path / ".adapter.replaced")  # as a kill between the two renames leaves it
    with pytest.raises(RuntimeError), write_directory(tmp_path / "adapter"):
        raise RuntimeError
    assert names(tmp_path / "adapter") == {"old"} and names(tmp_path) == {"adapter"}


def test_a_folder_that_comes_back_is_not_overwritten_unasked(tmp_path):
    (tmp_path / ".adapter.replaced").mkdir()  # as a kill between the two renames leaves it
    (tmp_path / ".adapter.replaced" / "old").touch()
    with pytest.raises(FileExistsError), write_directory(tmp_path / "adapter", overwrite=False):
        pass
    assert names(tmp_path / "adapter") == {"old"} and names(tmp_path) == {"adapter"}


def test_what_a_killed_process_left_is_removed_by_the_next_save(tmp_path):
    (tmp_path / ".adapter.incomplete").mkdir()
    (tmp_path / ".adapter.incomplete" / "half").touch()
    (tmp_path / ".adapter.replaced").mkdir()
    with write_directory(tmp_path / "adapter") as directory:
        (directory / "new").touch()
    assert names(tmp_path / "adapter") == {"new"} and names(tmp_path) == {"adapter"}


def test_a_file_is_never_replaced_by_a_directory(tmp_path, monkeypatch):
    (tmp_path / "adapter").write_text("mine")
    with pytest.raises(FileExistsError, match="adapter exists already"), write_directory(tmp_path / "adapter"):
        pass
    assert (tmp_path / "adapter").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    check_replaceable(tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="remove it, or choose another folder"):
        check_replaceable(tmp_path)
    monkeypatch.chdir(tmp_path / "empty")
    with write_directory(".") as directory:
        (directory / "clip").touch()
    assert names(tmp_path / "empty") == {"clip"}


def test_where_folders_cannot_be_opened_files_are_synced(tmp_path, monkeypatch):
    synced = []
    open_file, sync = os.open, os.fsync

    def open_as_windows_does(path, flags):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_file(path, flags)

    def sync_as_windows_does(descriptor):
        os.write(descriptor, b"")  # only what may be written
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.delattr(os, "O_DIRECTORY")
        patch.setattr(os, "open", open_as_windows_does)
        patch.setattr(os, "fsync", sync_as_windows_does)
        with write_directory(tmp_path / "adapter") as directory:
            (directory / "config.json").write_text("{}")
            (directory / "weights").mkdir()
            (directory / "weights" / "state.bin").write_bytes(b"1")
    assert sorted(synced) == ["config.json", "state.bin"]
