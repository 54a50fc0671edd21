"""A program whose packages are on a shelf: run it in an interpreter that has none of them installed.

Where the shelf is, the environment variable CLOUDIMPORT_SHELF says; what is pinned, the files next
to this one.
"""

from __future__ import annotations

import importlib.util
import site
import sys
import time

PACKAGES = ("requests", "pandas", "numpy")


def main() -> None:
    """Import requests and pandas from the shelf, use both, and say what it took."""
    installed = [name for name in PACKAGES if importlib.util.find_spec(name) is not None]
    if installed:
        raise SystemExit(f"this interpreter already has {', '.join(installed)}: it would prove nothing")
    print(f"Python {sys.version.split()[0]}; none of {', '.join(PACKAGES)} is installed")

    start = time.perf_counter()
    import cloudimport

    env = cloudimport.install()
    installed_at = time.perf_counter()
    import requests

    requests_at = time.perf_counter()
    import pandas

    pandas_at = time.perf_counter()

    request = requests.Request("GET", "https://example.org/", params={"city": "Basel"}).prepare()
    with open(requests.certs.where(), "rb") as bundle:
        certificates = bundle.read().count(b"BEGIN CERTIFICATE")
    table = pandas.DataFrame({"city": ["Basel", "Bern", "Basel"], "degrees": [21.0, 17.5, 24.0]})

    print(f"requests {requests.__version__}: {request.method} {request.url}, {certificates} certificates")
    print(f"pandas {pandas.__version__}: {table.groupby('city')['degrees'].mean().to_dict()}")
    below_root = pandas.__file__.startswith(env.root)
    print(f"pandas.__file__ is {'in the site tree' if below_root else pandas.__file__}")
    if not below_root or any(pandas.__file__.startswith(folder) for folder in site.getsitepackages()):
        raise SystemExit("pandas did not come from the shelf")

    took = f"import requests {_ms(requests_at - installed_at)}, import pandas {_ms(pandas_at - requests_at)}"
    print(f"install() {_ms(installed_at - start)}, {took}")
    count = cloudimport.stats()
    print(
        f"fetched {count['bytes_fetched'] / 1e6:.1f} MB in {count['requests']:.0f} requests "
        f"({count['round_trips']:.0f} round trips, {count['blocks_fetched']:.0f} blocks); "
        f"cache: {count['cache_hits']:.0f} hits, {count['cache_misses']:.0f} misses"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


if __name__ == "__main__":
    main()
