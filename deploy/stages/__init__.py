"""The four stages, one module a command: gpu -> convert -> bench (accuracy, throughput) -> score."""
