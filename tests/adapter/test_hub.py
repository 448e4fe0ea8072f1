"""Push folders in one commit: a broken or refused upload changes nothing, and the next one completes it."""

import os
import re
import signal
from pathlib import Path

import pytest

from motion_adapter.hub import push_folder


@pytest.fixture
def export(tmp_path) -> Path:
    """A folder to push; what is in it matters to other tests."""
    (tmp_path / "export" / "unet").mkdir(parents=True)
    (tmp_path / "export" / "pipeline.py").write_text("code")
    (tmp_path / "export" / "README.md").write_text("---\nlicense: mit\n---\n")
    for index in range(2):
        (tmp_path / "export" / "unet" / f"part{index}.safetensors").write_bytes(bytes([index]) * 100_000)
    return tmp_path / "export"


NAMES = {".gitattributes", "README.md", "pipeline.py", "unet/part0.safetensors", "unet/part1.safetensors"}


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("cut", ConnectionError, r"me/new: the Hub \(http.*\) does not answer"),
        (503, ConnectionError, "me/new: the Hub failed .503.*try again later"),
        (403, ValueError, "me/new: your token may not do this"),
        (413, ValueError, "me/new: the Hub refuses .413"),
    ],
)
@pytest.mark.parametrize("endpoint", ["PUT /lfs/", "POST /lfs/verify", "POST /api/models/me/new/commit/"])
def test_a_push_broken_anywhere_changes_nothing_and_the_next_one_completes_it(
    hub, export, fault, error, message, endpoint
):
    before = hub.create("me/new").head
    hub.refuse = lambda method, path: fault if f"{method} {path}".startswith(endpoint) else None
    with pytest.raises(error, match=message):
        push_folder(export, "me/new", "Add")
    assert hub.repos["me/new"].head == before
    hub.refuse = lambda method, path: None
    uploaded = len(hub.objects)
    hub.requests.clear()
    commit = push_folder(export, "me/new", "Add")
    assert hub.repos["me/new"].head == commit and len(hub.repos["me/new"].commits) == 2
    assert set(hub.repos["me/new"].files()) == NAMES
    sent = [path for method, path in hub.requests if method == "PUT"]
    assert len(sent) == 2 - uploaded  # what had arrived is not sent again


def test_ctrl_c_in_the_middle_changes_nothing_and_the_next_push_completes_it(hub, export):
    before = hub.create("me/new").head
    interrupts = [signal.SIGINT]

    def interrupt(method: str, path: str) -> None:
        if method == "PUT" and interrupts:
            os.kill(os.getpid(), interrupts.pop())

    hub.refuse = interrupt
    with pytest.raises(KeyboardInterrupt):
        push_folder(export, "me/new", "Add")
    assert hub.repos["me/new"].head == before
    assert push_folder(export, "me/new", "Add") == hub.repos["me/new"].head
    assert set(hub.repos["me/new"].files()) == NAMES and len(hub.repos["me/new"].commits) == 2


def test_what_an_earlier_export_left_goes_and_other_files_stay(hub, export):
    old = {"landscape_old.py", "model_index.json", "unet/part2.safetensors"}
    mine = {"picture.jpg", "notes/day.txt", "vae/config.json"}
    hub.create("me/new", dict.fromkeys(old | mine, b"x"))
    push_folder(export, "me/new", "Add")
    assert set(hub.repos["me/new"].files()) == NAMES | mine
    assert len(hub.repos["me/new"].commits) == 2


def test_pushing_the_same_again_makes_no_commit(hub, export):
    commit = push_folder(export, "me/new", "Add")
    assert push_folder(export, "me/new", "Add") == commit
    assert len(hub.repos["me/new"].commits) == 2


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(hub, export):
    repo = hub.create("me/new")

    def refuse(method: str, path: str) -> None:
        if path.endswith("/preupload/main") and len(repo.commits) == 1:
            repo.commit("theirs", {"theirs.txt": b""})

    hub.refuse = refuse
    with pytest.raises(ConnectionError, match="me/new: somebody else pushed meanwhile; nothing was changed"):
        push_folder(export, "me/new", "Add")
    assert [message for _, message, _ in repo.commits] == ["initial commit", "theirs"]


def test_a_card_that_the_hub_finds_invalid_stops_the_push(hub, export):
    (export / "README.md").write_text("no metadata")
    with pytest.raises(ValueError, match="me/new: the Hub refuses .400: has to begin with metadata"):
        push_folder(export, "me/new", "Add")
    assert len(hub.repos["me/new"].commits) == 1


def test_private_is_for_new_repositories(hub, export):
    push_folder(export, "me/secret", "Add", private=True)
    push_folder(export, "me/open", "Add")
    assert [hub.repos[name].private for name in ("me/secret", "me/open")] == [True, False]


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        ("hf_me", "you/new", "you/new: your token may not do this; use one with write access"),
        ("", "me/new", "me/new: the Hub does not know you: log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_you", "me/there", "me/there: your token may not do this"),
        ("hf_me", "new", "'new' is not a name on the Hub: it must be of the form USER/NAME."),
        ("hf_me", "me/new/one", "'me/new/one' is not a name on the Hub"),
    ],
)
def test_who_may_not_push_is_told_in_one_line(hub, export, monkeypatch, token, repo_id, message):
    monkeypatch.setenv("HF_TOKEN", token)
    before = hub.create("me/there").head
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        push_folder(export, repo_id, "Add")
    assert "\n" not in str(raised.value)
    assert set(hub.repos) == {"me/there"} and hub.repos["me/there"].head == before
