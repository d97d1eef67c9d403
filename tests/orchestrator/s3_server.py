"""A real S3 server on loopback, as tests of remote tables need one."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from pyarrow import fs


@dataclass(frozen=True)
class S3Server:
    """A server process with a bucket called ``bucket``.

    Attributes:
        address: host and port.
        process: of the server.
    """

    address: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of a server for a whole module; the environment names it and its keys meanwhile."""
    with started_s3_server() as server:
        yield server.address


@contextmanager
def started_s3_server() -> Iterator[S3Server]:
    """Start moto's server on a free port; its address is in the environment meanwhile."""
    pytest.importorskip("moto", reason="the S3 server of the tests is moto's; pip install 'moto[s3]' flask flask-cors")
    pytest.importorskip("flask_cors", reason="moto's server needs it; pip install flask flask-cors")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
            assert server.stderr is not None
            try:
                found = (re.search(r"http://(127\.0\.0\.1:\d+)", line) for line in server.stderr)
                address = next(match[1] for match in found if match)
                # Every request is a line that nobody reads, and a full pipe would stop the server.
                reading = threading.Thread(target=server.stderr.read, daemon=True)
                reading.start()
                environment.setenv("AWS_ENDPOINT_URL", f"http://{address}")
                storage = fs.S3FileSystem(endpoint_override=f"http://{address}", allow_bucket_creation=True)
                storage.create_dir("bucket")
                yield S3Server(address, server)
                server.kill()
                reading.join()
            finally:
                server.kill()
