"""The environment variables a run sets for Ray and its workers, and setting variables for the length of a block."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Wanted by every run, on a local and on a joined cluster; what the user has set stays as it is.
RUN_ENVIRONMENT: Mapping[str, str] = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # train.report() waits for this poll: 2 s by default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial that nobody reads: the results are in Parquet
}

_LOOPBACK_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"

#: Wanted for a Ray that this process starts for itself. OMP_NUM_THREADS is left to Ray on purpose: it gives each worker
#: as many threads as the worker was granted CPUs, unless the user has set the variable.
LOCAL_ENVIRONMENT: Mapping[str, str] = {
    **RUN_ENVIRONMENT,
    # Only loopback is listened on; else Ray writes a token into the home folder, and warns at each start.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GLOO_SOCKET_IFNAME": _LOOPBACK_INTERFACE,
    "NCCL_SOCKET_IFNAME": _LOOPBACK_INTERFACE,
}


@contextmanager
def variables(settings: Mapping[str, str], *, replace: bool = False) -> Iterator[None]:
    """Set environment variables for the length of a block, and put back what was there.

    Args:
        settings: names and values.
        replace: whether to set a variable that has a value already; without it the user's value stays.
    """
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if replace or before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
