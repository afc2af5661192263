"""Faults, the log, and the refusal of requests to other hosts, with clients of the standard library."""

from __future__ import annotations

import time
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers.hub_server import HubServer
from tests.servers.local_server import How, LocalServer, Request, Response, client_environment, run_client


WHO = "/api/whoami-v2"


def ask(server: LocalServer, method: str, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_faults_are_counted() -> None:
    with HubServer() as hub:
        hub.add_repo("user/model", {"a.txt": "0123456789"})
        file = "/user/model/resolve/main/a.txt"
        hub.fail("GET", "a.txt", 503, after=1, times=2, retry_after=7)
        hub.fail("HEAD", "", 418)
        assert [ask(hub, "GET", file)[0] for _ in range(4)] == [200, 503, 503, 200]
        hub.fail("GET", "a.txt", "corrupt")
        assert [ask(hub, "GET", file)[1] for _ in range(2)] == [b"0123446789", b"0123456789"]
        hub.fail("GET", "a.txt", "delay", seconds=0.3)
        start = time.monotonic()
        assert ask(hub, "GET", file)[0] == 200
        assert time.monotonic() - start > 0.3
        assert len(hub.requests("GET", "a.txt")) == 7
        assert not hub.requests("HEAD")


@pytest.mark.parametrize(
    ("how", "error"), [("drop", RemoteDisconnected), ("lose", RemoteDisconnected), ("truncate", IncompleteRead)]
)
def test_faults_break_connections(how: How, error: type[Exception]) -> None:
    with HubServer() as hub:
        hub.add_repo("user/model", {"a.txt": "0123456789"})
        hub.fail("GET", "a.txt", how)
        with pytest.raises(error):
            ask(hub, "GET", "/user/model/resolve/main/a.txt")
        assert ask(hub, "GET", "/user/model/resolve/main/a.txt") == (200, b"0123456789")


def test_open_connection_does_not_block_the_shutdown() -> None:
    with HubServer() as hub:
        connection = HTTPConnection(urlsplit(hub.url).netloc, timeout=10)
        connection.request("GET", WHO)
        assert connection.getresponse().read()
    connection.close()


def test_bug_in_the_server_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: Request) -> Response:
        raise KeyError("mistake")

    hub = HubServer()
    monkeypatch.setattr(hub, "whoami", broken)
    with pytest.raises(RuntimeError, match="KeyError: 'mistake'"), hub:
        assert ask(hub, "GET", WHO)[0] == 500


def test_requests_to_other_hosts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "token of the user")
    with HubServer() as hub:
        environment = client_environment(tmp_path, hub)
        errors = run_client(
            """
            import os, urllib.request
            def fetch(address):
                try:
                    urllib.request.urlopen(address)
                except OSError as error:
                    return str(error)
            result = [os.path.expanduser("~"), *map(fetch, addresses)]
            """,
            environment,
            addresses=["http://example.com/a", "https://example.com/b", f"{hub.url}/nothing"],
        )
        assert [request.path for request in hub.requests("CONNECT")] == ["http://example.com/a", "example.com:443"]
    assert environment["HF_TOKEN"] == hub.token
    assert errors[0] == str(tmp_path)
    assert ["403" in error for error in errors[1:]] == [True, True, False]
