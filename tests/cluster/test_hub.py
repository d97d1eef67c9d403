"""Asking a server once whether it is there: one that refuses, one that is silent, and none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster.hub import ask, ask_hub


class _Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_whoever_refuses_is_there() -> None:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        answer = ask(f"http://{address}")
        server.shutdown()
    assert (answer.answers, answer.words) == (True, f"{address} answers")


def test_nobody_there(listening: socket.socket) -> None:
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    answer = ask(f"http://{address}")
    assert not answer.answers
    assert answer.words.startswith(f"{address} does not answer (asked once: ")


def test_the_silent_are_not_waited_for(listening: socket.socket) -> None:
    started = time.monotonic()
    answer = ask(f"http://127.0.0.1:{listening.getsockname()[1]}", seconds=0.2)
    assert not answer.answers
    assert time.monotonic() - started < 2


def test_a_process_that_is_offline_asks_nobody() -> None:
    assert ask_hub().words == "this process is set to be offline (HF_HUB_OFFLINE)"  # as tests are
