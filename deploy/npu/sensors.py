"""A device's temperature and power while it works, read from npu-smi beside the run."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from typing import Any

from deploy.errors import KitError
from deploy.npu.device import Reading, Smi

FIRST_S, EVERY_S = 1.0, 2.0  # seldom: npu-smi takes the host's time, and on some boards the device's


class Sensors:
    """While this lasts, a thread reads the device now and then. A reading that fails is one fewer."""

    def __init__(self, asked: Smi, device: int) -> None:
        self.readings: list[Reading] = []
        self._smi, self._device = asked, device
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Sensors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        wait = FIRST_S
        while not self._over.wait(wait):
            wait = EVERY_S
            try:
                reading = self._smi.sensors(self._device)
            except KitError:
                continue
            if reading is not None and not self._over.is_set():  # else the run had ended by the time it answered
                self.readings.append(reading)


def sensed(readings: Sequence[Reading], samples_per_s: float) -> dict[str, Any]:
    """What benchmark.json says of the readings; joules per sample where the host tells power of this chip at work.

    Those with an idle AICore are of the tool's start and end, and left out where others tell that it worked. Where none
    does, as in a run of less than a second, they are of a device at rest, whose power makes no joules.
    """
    working = [reading for reading in readings if reading.chip.aicore_percent != 0]
    at_work = working or readings
    watts = [reading.power_w for reading in at_work if reading.power_w is not None]
    degrees = [each.chip.temperature_c for each in at_work if each.chip.temperature_c is not None]
    chips = max((reading.chips for reading in at_work), default=1)
    power = statistics.mean(watts) if watts else None
    return {
        "readings": len(at_work),
        "at_work": bool(working),
        "power_w": {"mean": power, "min": min(watts), "max": max(watts), "chips": chips} if watts else None,
        "temperature_c": {"min": min(degrees), "max": max(degrees)} if degrees else None,
        "joules_per_sample": power / samples_per_s if power is not None and working and chips == 1 else None,
    }
