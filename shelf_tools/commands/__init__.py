"""The commands of ``shelf``, a module each: ``add`` says what it takes, ``run`` does it."""
