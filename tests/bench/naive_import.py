"""The importer that one writes first: a list of what there is, then a GET for each module that is imported.

Here to be compared with, and given what it can be given: it knows the list beforehand, so that it never
asks for what is not there, keeps its connection, and fetches the libraries beside an extension module
before that is loaded. Data files it does not have.
"""

from __future__ import annotations

import http.client
import importlib.abc
import importlib.machinery
import importlib.util
import marshal
import os
import ssl
import sys
import urllib.parse


class NaiveFinder(importlib.abc.MetaPathFinder):
    """Finds what the list has below ``url``; native code goes to ``folder``."""

    def __init__(self, url: str, folder: str) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._folder = folder
        context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
        self._connection = http.client.HTTPSConnection(self._url.netloc, context=context)
        self._paths = set(self.get("LIST").decode().splitlines())

    def get(self, path: str) -> bytes:
        """Return an object."""
        self._connection.request("GET", f"{self._url.path}/{urllib.parse.quote(path)}")
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ImportError(f"{path}: status {response.status}")
        return data

    def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        """Return the spec of a module in the list."""
        stem = fullname.replace(".", "/")
        for place in (f"{stem}/__init__.py", f"{stem}.py"):
            if place in self._paths:
                is_package = place.endswith("/__init__.py")
                loader = NaiveLoader(self, place)
                found = importlib.util.spec_from_loader(fullname, loader, origin=place, is_package=is_package)
                if found is not None and is_package:
                    found.submodule_search_locations = [f"{self._folder}/{stem}"]
                return found
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            if stem + suffix in self._paths:
                return importlib.util.spec_from_file_location(fullname, self._native(stem + suffix))
        if any(name.startswith(f"{stem}/") for name in self._paths):
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [f"{self._folder}/{stem}"]
            return spec
        return None

    def _native(self, path: str) -> str:
        package = path.partition("/")[0]
        beside = [name for name in self._paths if name.startswith(f"{package}.libs/")]
        near = [name for name in self._paths if name.rpartition("/")[0] == path.rpartition("/")[0]]
        for name in (*beside, *(n for n in near if ".so" in n and not n.endswith(".so")), path):
            place = f"{self._folder}/{name}"
            if not os.path.exists(place):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "wb") as file:
                    file.write(self.get(name))
        return f"{self._folder}/{path}"


class NaiveLoader(importlib.abc.Loader):
    """Runs a module from its bytecode."""

    def __init__(self, finder: NaiveFinder, path: str) -> None:
        self._finder, self._path = finder, path

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        """Fetch and execute."""
        folder, _, name = self._path.rpartition("/")
        cached = f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc".lstrip("/")
        module.__file__ = f"{self._finder._folder}/{self._path}"
        exec(marshal.loads(self._finder.get(cached)[16:]), module.__dict__)


def install(url: str, folder: str) -> None:
    """Import from below ``url`` from now on."""
    sys.meta_path.insert(0, NaiveFinder(url, folder))
