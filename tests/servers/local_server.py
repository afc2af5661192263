"""The base class of the local servers: an HTTP server with a log of all requests, and faults on demand.

Hubs store large files on a different host than their API, and clients must not send a token there. So each server
listens on two addresses: `url` is the API, and `storage_url` is the storage.
"""

from __future__ import annotations

import json
import os
import re
import socket
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.forked import CLIENTS, run_forked


How = int | Literal["drop", "lose", "truncate", "corrupt", "delay"] | Callable[[], object]

# Variables of the user that would change the clients, tokens or caches of the tests.
_FOREIGN = re.compile(r"^(HF_|HUGGING|TRANSFORMERS_|KAGGLE|MODELSCOPE_|COLAB_|XDG_CACHE_HOME$)|_proxy$", re.IGNORECASE)


def client_environment(home: Path, *servers: LocalServer) -> dict[str, str]:
    """Return the environment of a client process that uses only these servers, with its caches in `home`."""
    inherited = {name: value for name, value in os.environ.items() if not _FOREIGN.search(name)}
    ours = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "no_proxy": "127.0.0.1,127.0.0.2"}
    # Requests to other hosts go to a server as the proxy. It refuses them, and logs them as CONNECT.
    ours |= {"http_proxy": servers[0].url, "https_proxy": servers[0].url}
    for server in servers:
        ours |= server.environment(home)
    return inherited | ours


def run_client(code: str, environment: Mapping[str, str], **values: Any) -> Any:
    """Run code in a process of its own, because clients read their environment at import.

    Args:
        code: Python code. It may set `result`.
        environment: Of `client_environment`.
        **values: Variables of the code, as JSON types.

    Returns:
        The value of `result`, as JSON types.
    """
    arguments = (textwrap.dedent(code), json.dumps(values))
    # Kaggle's client compares all modules with each frame of its stack, for each request.
    libraries = () if any(name.startswith("KAGGLE") for name in environment) else CLIENTS
    done = run_forked(_RUN, *arguments, environment=environment, cwd=Path.cwd(), libraries=libraries)
    assert done.code == 0, done.stdout + done.stderr
    for name, value in environment.items():
        assert not name.endswith("_TOKEN") or value not in done.stdout + done.stderr, f"{name} was printed"
    return json.loads(done.stdout.splitlines()[-1])


_RUN = """
import json, sys
scope = json.loads(sys.argv[2])
exec(sys.argv[1], scope)
print()
print(json.dumps(scope.get("result")))
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a client.

    Args:
        method: The method, in upper case.
        path: The quoted path, because `refs%2Fpr%2F1` is one part of a path.
        query: The last value of each parameter.
        headers: The headers, with names in lower case.
        body: The whole body.
        storage: Whether it was sent to the storage instead of the API.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    storage: bool

    @property
    def authorized(self) -> bool:
        """Whether it has a token, valid or not."""
        return "authorization" in self.headers

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a server."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Refusal(Exception):  # noqa: N818
    """An error response, raised in a handler.

    Args:
        status: The HTTP status.
        message: The error message.
        code: The error code, if the protocol has one.
        headers: Additional headers.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


@dataclass
class _Fault:
    method: str
    pattern: re.Pattern[str]
    how: How
    times: int
    after: int
    refusal: Refusal
    seconds: float
    body: str


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, _dump(content))


def _dump(content: Any) -> bytes:
    return json.dumps(content).encode()


def ranged_response(request: Request, content: bytes, headers: Mapping[str, str]) -> Response:
    """Return the part of a file that the `Range` header requests."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    if not (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))):
        return Response(200, headers, content)
    start, stop = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
    if start >= len(content):
        return Response(416, {"Content-Range": f"bytes */{len(content)}"})
    return Response(206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}, content[start:stop])


class LocalServer:
    """A server in threads of this process, until the end of the `with` block; its storage is on 127.0.0.2."""

    # (method, pattern of the whole quoted path, name of the handler), first match wins. Named groups become arguments.
    routes: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    def __init__(self) -> None:
        self.log: list[Request] = []
        self.lock = threading.RLock()  # handlers and tests access the data one at a time
        self._faults: list[_Fault] = []
        self._bugs: list[str] = []

    def __enter__(self) -> Self:
        self._listeners = [_Listener(self, storage) for storage in (False, True)]
        addresses = (listener.server_address for listener in self._listeners)
        self.url, self.storage_url = (f"http://{address[0]}:{address[1]}" for address in addresses)
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            listener.stop()
        if self._bugs and error is None:  # a client may have hidden the bug with a retry
            raise RuntimeError("The server itself failed:\n" + "\n".join(self._bugs))

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables that make clients use this server."""
        raise NotImplementedError

    def refuse(self, refusal: Refusal) -> Response:
        """Return an error in the form of this protocol."""
        raise NotImplementedError

    def requests(self, method: str = "", pattern: str = "") -> list[Request]:
        """Return the requests so far with this method, and with this pattern in the unquoted path."""
        with self.lock:
            return [r for r in self.log if method in ("", r.method) and re.search(pattern, unquote(r.path))]

    def fail(
        self,
        method: str,
        pattern: str,
        how: How,
        *,
        times: int = 1,
        after: int = 0,
        retry_after: int | None = None,
        code: str = "",
        message: str = "A fault, on demand.",
        seconds: float = 1.0,
        body: str = "",
    ) -> None:
        """Make the next requests fail.

        Args:
            method: The method of the requests; any if empty.
            pattern: A pattern in their unquoted paths.
            how: An HTTP status, a function to call before the normal response, or one of: `"drop"` closes the
                connection without handling the request; `"lose"` handles the request and closes the connection;
                `"truncate"` and `"corrupt"` change the body of a PUT request, or of the response to other requests;
                `"delay"` delays the response.
            times: The number of requests that fail.
            after: The number of matching requests before the first failure.
            retry_after: The Retry-After header of a status, in seconds.
            code: The error code of a status.
            message: The error message of a status.
            seconds: The length of a delay.
            body: A string in the bodies of the requests.
        """
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        refusal = Refusal(how if isinstance(how, int) else 500, message, code, headers)
        with self.lock:
            self._faults.append(_Fault(method, re.compile(pattern), how, times, after, refusal, seconds, body))

    def _next_fault(self, request: Request) -> _Fault | None:
        for fault in self._faults:
            asked = fault.method in ("", request.method) and fault.pattern.search(unquote(request.path))
            if asked and fault.body.encode() in request.body and fault.times:
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def answer(self, request: Request) -> tuple[Response | None, bool]:
        """Return the response, or None to close the connection, and whether to send its whole body."""
        with self.lock:
            self.log.append(request)
            fault = self._next_fault(request)
        how = fault.how if fault else None
        if fault and how == "delay":
            time.sleep(fault.seconds)
        if how == "drop":
            return None, True
        if callable(how):
            how()
        if request.method == "PUT" and isinstance(how, str):
            request = _spoil_request(request, how)
        try:
            if fault and isinstance(how, int):
                raise fault.refusal
            response = self._handle(request)
        except Refusal as refusal:
            response = self.refuse(refusal)
        except Exception:
            self._bugs.append(f"{request}\n{traceback.format_exc()}")
            response = self.refuse(Refusal(500, "A bug of the local server."))
        if how == "lose":
            return None, True
        if how == "corrupt" and request.method != "PUT":
            response = Response(response.status, response.headers, _corrupt(response.body))
        return response, how != "truncate" or request.method == "PUT"

    def _handle(self, request: Request) -> Response:
        for method, pattern, name in self.routes:
            found = re.fullmatch(pattern, request.path)
            if method == request.method and found and request.storage == request.path.startswith("/storage/"):
                arguments = {group: unquote(value or "") for group, value in found.groupdict().items()}
                with self.lock:
                    response: Response = getattr(self, name)(request, **arguments)
                return response
        raise Refusal(404, "Sorry, there is no such page.")


def _spoil_request(request: Request, how: str) -> Request:
    body = request.body
    spoiled = {"corrupt": _corrupt(body), "truncate": body[: len(body) // 2]}.get(how, body)
    return Request(request.method, request.path, request.query, request.headers, spoiled, request.storage)


def _corrupt(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 1 for byte in content[middle : middle + 1]) + content[middle + 1 :]


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for all threads

    def __init__(self, owner: LocalServer, storage: bool) -> None:
        # As on the Hub, another host has the files: huggingface_hub 1 follows redirects that stay on a host.
        super().__init__(("127.0.0.2" if storage else "127.0.0.1", 0), _Handler)
        self.owner, self.storage = owner, storage
        self.connections: set[socket.socket] = set()

    def stop(self) -> None:
        self.shutdown()
        for connection in list(self.connections):  # clients of this process may keep them alive
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener
    connection: socket.socket

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client closed the connection
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass  # LocalServer.log has it

    def answer(self) -> None:
        owner, target = self.server.owner, urlsplit(self.path)  # has a host if the client uses this server as a proxy
        storage = urlsplit(owner.storage_url).netloc
        if target.netloc not in ("", "localhost", storage, urlsplit(owner.url).netloc):
            self.do_CONNECT()
            return
        response, whole = owner.answer(
            Request(
                self.command,
                target.path,
                dict(parse_qsl(target.query)),
                {name.lower(): value for name, value in self.headers.items()},
                self.read_body(),
                target.netloc == storage if target.netloc else self.server.storage,
            )
        )
        if response is None:
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body if whole else response.body[: len(response.body) // 2])
        if not whole:
            self.close_connection = True

    def do_CONNECT(self) -> None:
        """Refuse to be a proxy for another host, and log the request."""
        with self.server.owner.lock:
            self.server.owner.log.append(Request("CONNECT", self.path, {}, {}, b"", self.server.storage))
        self.send_error(HTTPStatus.FORBIDDEN)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)


for _method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
    setattr(_Handler, f"do_{_method}", _Handler.answer)
