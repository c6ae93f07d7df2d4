"""docker/healthcheck.py, which belongs to no room: it is a file of the images."""

import importlib.util
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from types import ModuleType
from typing import Any

import pytest

from server.services.certificates import ensure_certificate

SCRIPT = Path(__file__).parents[2] / "docker" / "healthcheck.py"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WHEREABOUTS", tmp_path / "server.json")
    monkeypatch.setenv("ARBORCAST_SOCKET", str(tmp_path / "agent.sock"))
    return module


def answering(status: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path in ("/readyz", "/status") else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return ""

    return Handler


@contextmanager
def serving(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_is_asked_where_it_says_it_is(script: ModuleType, tmp_path: Path, scheme: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering(200))
    if scheme == "https":
        certificate, key = ensure_certificate(tmp_path, names=(), wanted=(), wall=1.8e9)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    script.WHEREABOUTS.write_text(json.dumps({"local_url": f"{scheme}://127.0.0.1:{server.server_port}"}))
    with serving(server):
        assert script.check("server") == ""


def test_an_agent_is_asked_at_its_unix_socket(script: ModuleType, tmp_path: Path) -> None:
    with serving(ThreadingUnixStreamServer(str(tmp_path / "agent.sock"), answering(200))):
        assert script.check("agent") == ""
    assert "the agent does not answer" in script.check("agent")


def test_an_answer_that_is_none_of_health_is_told(script: ModuleType, tmp_path: Path) -> None:
    with serving(ThreadingUnixStreamServer(str(tmp_path / "agent.sock"), answering(503))):
        assert script.check("agent") == "the agent answers /status with 503"


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_a_server_that_does_not_say_where_it_is_is_told(script: ModuleType, text: str | None) -> None:
    if text is not None:
        script.WHEREABOUTS.write_text(text)
    assert "the server does not answer" in script.check("server")
