"""`--device 0,1,...`: a process a device, and the plain sum of their throughputs."""

import argparse
import copy
import logging
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

from . import batches

logger = logging.getLogger(__name__)


def run_devices(arguments: argparse.Namespace, era: str) -> int:
    """A process a device, over all inputs or, with --divide_input, over its share; 0 if every device came through."""
    logger.info(f"multidevice:{arguments.device} run begin")
    context = multiprocessing.get_context("fork")
    finished: Any = context.SimpleQueue()
    barrier = context.Barrier(len(arguments.device))
    workers = []
    for index, number in enumerate(arguments.device):
        mine = copy.copy(arguments)
        mine.device = number
        folder = f"device{number}" if era < "2024" else f"device{number}_{index}"
        mine.output_dirname = f"{arguments.output_dirname or time.strftime('%Y_%m_%d-%H_%M_%S')}/{folder}"
        if arguments.divide_input and arguments.input is not None:
            mine.input = share(arguments.input, era, index, len(arguments.device))
        workers.append(context.Process(target=run_one, args=(mine, era, index, barrier, finished)))
        workers[-1].start()
    for worker in workers:
        worker.join()
    throughputs = []
    while not finished.empty():
        index, throughput, start, end = finished.get()
        name = f"device_{arguments.device[index]}"
        logger.info(f"i:{index} {name} throughput:{throughput} start_time:{start} end_time:{end}")
        throughputs.append(throughput)
    logger.info(f"summary throughput:{sum(throughputs)}")
    return int(len(throughputs) < len(workers))


def run_one(arguments: argparse.Namespace, era: str, index: int, barrier: Any, finished: Any) -> None:
    """What a device's process does: get ready, wait for the others for ten seconds at most, run, tell the result."""

    def ready() -> None:
        try:
            barrier.wait(10)
        except threading.BrokenBarrierError:
            logger.warning(f"subprocess_{index} goes on without the others")

    try:
        from .inference import run

        finished.put((index, *run(arguments, era, ready)))
    except Exception as error:  # as the real tool's pool does: the other devices go on
        barrier.abort()
        logger.error(f"subprocess run failed error_callback:{error}")


def share(inputs: str, era: str, index: int, count: int) -> str:
    """One device's part of `--input`, in order and as even as it comes: files of one model input, or of each folder."""
    names = inputs.split(",")
    parts = [batches.folder(name, era) for name in names] if Path(names[0]).is_dir() else [names]
    chosen = []
    for files in parts:
        size, left = divmod(len(files), count)
        first = index * size + min(index, left)
        chosen += files[first : first + size + (index < left)]
    return ",".join(chosen)
