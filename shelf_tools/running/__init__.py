"""``shelf run``: functions of a file, each in a sandbox of its own with an environment of its own."""
