"""Many NPU hosts as one Ray cluster: the stages' units of work as tasks of it. Imported for `engine: {kind: ray}`."""

import os

# Before Ray's import reads them: it reports home by default, and a call after an interrupt would start another cluster.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
