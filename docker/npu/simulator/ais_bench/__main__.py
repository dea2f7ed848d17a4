"""`python -m ais_bench`: run a model on one device over files or over zeros, time it and keep what it puts out."""

import logging
import sys

import scenario

from . import arguments, devices, profiler


def main() -> int:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="[%(levelname)s] %(message)s")
    try:
        era = scenario.load().era
    except scenario.ScenarioError as error:
        sys.exit(str(error))
    flags = arguments.parser(era).parse_args()
    arguments.check(flags)
    if flags.debug:
        logging.getLogger().setLevel(logging.DEBUG)
    if flags.profiler and (msprof := profiler.find()):
        return profiler.run(flags, msprof, era)
    if isinstance(flags.device, list):
        return devices.run_devices(flags, era)
    from .inference import run  # late: a bad flag should not wait for ONNX Runtime

    run(flags, era)
    return 0


if __name__ == "__main__":
    sys.exit(main())
