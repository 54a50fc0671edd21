"""``drive.py SUBJECT RESULTS BEHAVIOUR…``: run behaviours on one distribution, write down what they show.

Runs in an interpreter of its own: with the packages from a shelf, if ``CONFORMANCE_SIDE`` is
"shelf", else with the folder that pip has made. Each line of the results is a JSON list: an item
that begins, or its value, or the end of a behaviour; so whoever reads them knows what was at work
when an interpreter died.
"""

import importlib
import json
import os
import sys

ROOT = ""


def main():
    """Run what the command line says."""
    global ROOT
    subject_path, results, *names = sys.argv[1:]
    if os.environ["CONFORMANCE_SIDE"] == "shelf":
        import cloudimport

        ROOT = cloudimport.install().root
    else:
        ROOT = os.environ["CONFORMANCE_ROOT"]
    from behaviours.record import Recorder, Subject

    with open(subject_path) as file:
        subject = Subject(ROOT, json.load(file))
    recorder = Recorder(results, ROOT)
    for name in names:
        module, _, function = name.partition(".")
        probe = getattr(importlib.import_module("behaviours." + module), function)
        recorder.run(name, probe, subject)
    # Interpreters that end badly are for the runner to see.


if __name__ == "__main__":
    main()
