"""``from_shelf.py NAME``: install the environment that the settings name, run one program, report.

The report is one line of JSON on standard error: the counts, and what could have gone wrong with them.
"""

import json
import os
import runpy
import sys

import cloudimport

env = cloudimport.install()
program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs.py")
sys.argv = [program, *sys.argv[1:]]
try:
    runpy.run_path(program, run_name="__main__")
finally:
    folders = [entry for entry in sys.path if entry != env.root and os.path.isdir(entry)]
    installed = [name for folder in folders for name in os.listdir(folder) if name.endswith(".dist-info")]
    print(json.dumps({**cloudimport.stats(), "installed": installed, "root": env.root}), file=sys.stderr)
