"""A run on one device: open the model, warm up, infer every batch, keep the outputs, report the times."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import aclruntime

from . import batches, legality
from .results import Results, Summary

logger = logging.getLogger(__name__)


def progress(items: Iterable[batches.Batch], count: int, title: str) -> Iterator[batches.Batch]:
    """The items, with a bar on stdout that is redrawn in place a few times a second."""
    start = drawn = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == count or now - drawn > 0.2:
            drawn = now
            bar = "█" * (10 * done // count)
            print(end=f"\r{title}: {100 * done // count:3}%|{bar:<10}| {done}/{count} {pace(done, count, now - start)}")
            sys.stdout.flush()
    print(flush=True)


def pace(done: int, count: int, seconds: float) -> str:
    """As tqdm shows it: `[00:02<00:00,  4.55it/s]`, below one a second `1.20s/it`."""

    def clock(s: float) -> str:
        return f"{int(s) // 60:02}:{int(s) % 60:02}"

    each = max(seconds, 1e-9) / done
    rate = f"{1 / each:5.2f}it/s" if each < 1 else f"{each:5.2f}s/it"
    return f"[{clock(seconds)}<{clock(each * (count - done))}, {rate}]"


def open_session(arguments: argparse.Namespace) -> Any:
    """The model on its device, its dynamic batch set, and `arguments.batchsize` asked of it if it was left out."""
    options = aclruntime.session_options()
    options.loop = arguments.loop
    options.log_level = 1 if arguments.debug else 2
    session = aclruntime.InferenceSession(arguments.model, arguments.device, options)
    if arguments.dymBatch:
        session.set_dynamic_batchsize(arguments.dymBatch)
    elif arguments.dymHW:
        session.set_dynamic_hw(*map(int, arguments.dymHW.split(",")))
    elif arguments.dymDims:
        session.set_dynamic_dims(arguments.dymDims)
    elif arguments.dymShape:
        session.set_dynamic_shape(arguments.dymShape)
    else:
        session.set_staticbatch()
    if arguments.batchsize is None:
        arguments.batchsize = arguments.dymBatch or session.get_inputs()[0].shape[0]
        logger.info(f"try get model batchsize:{arguments.batchsize}")
    return session


def results_folder(arguments: argparse.Namespace, era: str) -> str | None:
    """`<output>/<output_dirname or the time>`, made if it is not there."""
    if arguments.output is None:
        return None
    folder = batches.under(arguments.output, arguments.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S"))
    Path(folder).mkdir(0o755 if era < "2024" else legality.FOLDER_MODE, parents=True, exist_ok=True)
    if era >= "2024":
        Path(arguments.output).chmod(legality.FOLDER_MODE)
    logger.info(f"output path:{folder}")
    return folder


def feeds(session: Any, arguments: argparse.Namespace, batch: batches.Batch) -> list[Any]:
    """The batch as aclruntime takes it; the arrays that BaseTensors point into must outlive the run."""
    if arguments.run_mode == "files":
        return [
            session.create_tensor_from_fileslist(description, batches.real_files(names))
            for names, description in zip(batch, session.get_inputs(), strict=True)
        ]
    arrays = [
        batches.join(names, description.realsize, arguments.pure_data_type)
        for names, description in zip(batch, session.get_inputs(), strict=True)
    ]
    if arguments.run_mode == "tensor":
        tensors = [aclruntime.Tensor(array) for array in arrays]
        for tensor in tensors:
            tensor.to_device(arguments.device)
        return tensors
    return arrays


def infer(session: Any, arguments: argparse.Namespace, batch: batches.Batch) -> list[Any]:
    """The outputs of one batch as arrays on the host."""
    inputs = feeds(session, arguments, batch)
    pointers = [
        aclruntime.BaseTensor(array.__array_interface__["data"][0], array.nbytes)
        if isinstance(array, np.ndarray)
        else array
        for array in inputs
    ]
    outputs = session.run([description.name for description in session.get_outputs()], pointers)
    for output in outputs:
        output.to_host()
    return [np.array(output) for output in outputs]


def run(
    arguments: argparse.Namespace, era: str, ready: Callable[[], None] = lambda: None
) -> tuple[float, float, float]:
    """Warm up, infer every batch and report: throughput, start and end; `ready` is called between warm-up and start."""
    pipeline = getattr(arguments, "pipeline", False)
    sessions = [open_session(arguments) for _ in range(arguments.threads if pipeline else 1)]
    session = sessions[0]
    folder = results_folder(arguments, era)
    todo = batches_of(arguments, [description.realsize for description in session.get_inputs()], era, pipeline)
    for each in sessions:
        warm_up(each, arguments, todo[0])
    aclruntime.MemorySummary.reset()
    if era >= "2022-07":
        logger.info(f"warm up {arguments.warmup_count} done")
    ready()
    start = time.time()
    results = Results(folder, arguments.outfmt, arguments.output_batchsize_axis, era)
    if pipeline:
        in_pipeline(sessions, arguments, todo, folder)
    else:
        one_by_one(session, arguments, todo, results)
    end = time.time()
    times = session.sumary().exec_time_list
    together = len(sessions) > 1
    if era >= "2024" and not together:
        times = [after - before for before, after in times]
    memory = aclruntime.MemorySummary
    summary = Summary(times, memory.H2D_time_list, memory.D2H_time_list, arguments.batchsize, together)
    summary.log(era, arguments.display_all_summary)
    if folder is not None:
        summary.write(results)
    if era >= "2024":
        for each in sessions:
            each.free_resource()
    aclruntime.InferenceSession.finalize()
    return summary.throughput, start, end


def batches_of(arguments: argparse.Namespace, sizes: list[int], era: str, pipeline: bool) -> list[batches.Batch]:
    """What is to be inferred; without --input one batch of made up bytes."""
    if arguments.input is None:
        return [[[batches.PURE] for _ in sizes]]
    if pipeline:
        return [[[name] for name in batch] for batch in batches.whole(arguments.input, sizes, era)]
    return batches.make(arguments.input, sizes, era)


def warm_up(session: Any, arguments: argparse.Namespace, batch: batches.Batch) -> None:
    session.options().loop = 1
    for _ in range(arguments.warmup_count):
        infer(session, arguments, batch)
    session.options().loop = arguments.loop
    session.reset_sumaryinfo()


def one_by_one(session: Any, arguments: argparse.Namespace, todo: list[batches.Batch], results: Results) -> None:
    titles = {"full": "Inference Processing full"}
    title = titles.get(arguments.run_mode, f"Inference {arguments.run_mode} Processing")
    for number, batch in enumerate(progress(todo, len(todo), title)):
        outputs = infer(session, arguments, batch)
        if results.folder is not None:
            results.save(number, batch, outputs)


def in_pipeline(
    sessions: list[Any], arguments: argparse.Namespace, todo: list[batches.Batch], folder: str | None
) -> None:
    """A thread for each session; they write their own results."""
    logger.info(f"run in pipeline mode with computing threadsnumber:{len(sessions)}")
    options = aclruntime.infer_options()
    options.output_dir, options.pure_infer_mode = folder or "", arguments.input is None
    sessions[0].run_pipeline([[names[0] for names in batch] for batch in todo], options, sessions[1:])
