"""How this package gets into a Python of another process: over its standard input, run from memory, stored nowhere.

    python3 -I -c "import sys; exec(sys.stdin.buffer.readline())" serve < payload() + requests

The line that is read unpacks all else, so that the argument is one that every login shell passes on as it is.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import zlib

ARGUMENTS = ("-I", "-c", "import sys; exec(sys.stdin.buffer.readline())")
MODULES = (
    *("compression", "files", "folders", "jobs", "launch", "machine"),
    *("old_layout", "operations", "places", "processes", "protocol", "shards", "workspace"),
)
_PACKAGE = "remote"
TOO_OLD = "python3 there is %s; install Python 3.7 or newer"

# Any Python 3 can read it; SOURCES is {module: its text}.
_LOADER = """
import importlib, sys
from importlib.machinery import ModuleSpec
class Sources:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=name == PACKAGE) if name in SOURCES else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__name__
        exec(compile(SOURCES[name], "<" + name + ">", "exec", dont_inherit=True), module.__dict__)
    def get_source(self, name):
        return SOURCES[name]
if sys.version_info < (3, 7):
    sys.exit(TOO_OLD % sys.version.split()[0])
sys.meta_path.insert(0, Sources())
sys.exit(importlib.import_module(PACKAGE + ".operations").main(sys.argv[1:]))
"""


@functools.lru_cache(maxsize=None)
def payload() -> bytes:
    """What goes before the requests on the standard input of a Python that was started with ARGUMENTS."""
    sources = {_PACKAGE: "", **{_PACKAGE + "." + name: _source(name) for name in MODULES}}
    values = {"SOURCES": sources, "PACKAGE": _PACKAGE, "TOO_OLD": TOO_OLD}
    # What ASCII JSON says of text, a Python literal says too.
    named = "".join("%s = %s\n" % (name, json.dumps(value)) for name, value in values.items())
    packed = zlib.compress((named + _LOADER).encode("ascii"))
    return b"import zlib; exec(zlib.decompress(sys.stdin.buffer.read(%d)))\n" % len(packed) + packed


def _source(name: str) -> str:
    """Of a module of this package, wherever it came from: files here, memory on a host."""
    spec = importlib.util.find_spec("." + name, __package__)
    return spec.loader.get_source(spec.name)  # type: ignore[union-attr, no-any-return]
