"""Where it runs: starting or joining Ray, resources, storage, locks, and what the device itself measures."""
