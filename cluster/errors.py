"""Errors of the place where a run happens."""


class ClusterError(RuntimeError):
    """The cluster, a disk or a device failed; the message is one line that says what and how to go on."""


class ClusterUserError(ValueError):
    """The user asked for something the cluster cannot give; the message is one line that says what to change."""
