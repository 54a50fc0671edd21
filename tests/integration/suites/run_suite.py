"""``run_suite.py REPORT ARGUMENT...``: pytest on a package's own tests, from pip or from the shelf."""

import os
import sys

if "CLOUDIMPORT_LOCK" in os.environ:
    import cloudimport

    cloudimport.install()

import pytest

report, *arguments = sys.argv[1:]
sys.exit(pytest.main(["-p", "no:cacheprovider", "-q", "--timeout=300", f"--junitxml={report}", *arguments]))
