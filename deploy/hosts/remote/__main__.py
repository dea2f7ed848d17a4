"""Runs the package from wherever it lies, `python3 -I` included."""

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.exit(importlib.import_module("remote.operations").main(sys.argv[1:]))
