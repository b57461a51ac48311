import functools
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download

from plumbline.core.errors import UserError
from plumbline.core.run import hub
from plumbline.core.run.hub import Repository

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """A hub that has the data set lab/texts and the model lab/speaker, both at one commit."""

    def do_GET(self) -> None:
        known = self.path.startswith(("/api/datasets/lab/texts", "/api/models/lab/speaker"))
        body = json.dumps({"id": "lab", "sha": COMMIT, "siblings": []} if known else {"error": "no\nsuch"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint=endpoint))
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> str:
    endpoint = "http://127.0.0.1:9"  # port 9 of this machine: nothing listens there
    monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint=endpoint))
    return endpoint


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(("kind", "id"), [("dataset", "lab/texts"), ("model", "lab/speaker")])
@pytest.mark.parametrize("revision", [None, "main"])
def test_a_revision_becomes_the_commit_it_stands_for(kind: Any, id: str, revision: str | None) -> None:
    assert Repository(kind=kind, id=id, revision=revision, key="study").commit() == COMMIT


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(("kind", "id"), [("model", "lab/texts"), ("dataset", "lab/nothing")])
def test_what_the_hub_does_not_have_is_told_in_one_line(kind: Any, id: str) -> None:
    with pytest.raises(
        UserError, match=rf"study\.hub\.id: {id} is not a directory here, and the hub did not"
    ) as caught:
        Repository(kind=kind, id=id, key="study.hub").commit()
    assert "\n" not in str(caught.value)


def test_a_folder_has_no_commit_and_takes_no_revision(tmp_path: Path) -> None:
    assert Repository(kind="model", id=str(tmp_path), key="study").commit() is None
    with pytest.raises(UserError, match=r"study\.revision: .* is a directory, which has no revisions; remove the key"):
        Repository(kind="model", id=str(tmp_path), revision="main", key="study").commit()


def test_an_id_that_can_be_none_is_told() -> None:
    with pytest.raises(UserError, match=r"study\.id: a/b/c is neither a directory here nor an id: "):
        Repository(kind="dataset", id="a/b/c", key="study").commit()


@pytest.mark.usefixtures("silent")
def test_a_hub_that_does_not_answer_is_told() -> None:
    with pytest.raises(UserError, match="the hub did not provide it"):
        Repository(kind="dataset", id="lab/texts", key="study").commit()


def test_a_download_that_fails_is_told(silent: str, tmp_path: Path) -> None:
    repository = Repository(kind="model", id="lab/speaker", key="study")
    with pytest.raises(UserError, match="the hub did not provide it"), repository.reached():
        snapshot_download(repository.id, endpoint=silent, cache_dir=tmp_path)


def test_other_faults_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), Repository(kind="model", id="lab/speaker", key="study").reached():
        raise ZeroDivisionError
