"""``from_shelf.py NAME``: install the environment that the settings name, open data in one way."""

import os
import runpy
import sys

import cloudimport

cloudimport.install()
sys.argv = [os.environ["WAYS"], *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
