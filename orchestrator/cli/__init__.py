"""The command ``netsuke``: one file for each command or group; heavy libraries load inside the commands only."""
