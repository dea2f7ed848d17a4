"""The NPU host's tools as pure functions: build argument lists, parse what the tools print. No I/O."""
