"""The flags of each era, with its defaults, and what the tool refuses of them."""

import argparse
import logging
from typing import Any

import scenario

from . import legality

logger = logging.getLogger(__name__)
NOT_PLAYED = (
    "acl_json_path", "aipp_config", "auto_set_dymdims_mode", "auto_set_dymshape_mode", "backend", "dump", "dump_npy",
    "dymShape_range", "energy_consumption", "perf",
)  # fmt: skip


def boolean(text: str) -> bool:
    if text.lower() not in ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0"):
        raise argparse.ArgumentTypeError("Boolean value expected true, 1, false, 0 with case insensitive.")
    return text.lower() in ("yes", "true", "t", "y", "1")


def positive(text: str) -> int:
    if int(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is an invalid positive int value")
    return int(text)


def nonnegative(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is an invalid nonnegative int value")
    return int(text)


def device(text: str) -> int:
    if not 0 <= int(text) <= 255:
        raise argparse.ArgumentTypeError(f"device:{text} is invalid. valid value range is [0, 255]")
    return int(text)


def devices(text: str) -> int | list[int]:
    return [device(item) for item in text.split(",")] if "," in text else device(text)


def parser(era: str) -> argparse.ArgumentParser:
    """The flags of the era, with its defaults."""
    flags = argparse.ArgumentParser(prog="__main__.py")
    strict = era >= "2024"

    def add(name: str, *short: str, **how: Any) -> None:
        dashed = [f"--{name.replace('_', '-')}"] if strict and "_" in name else []
        flags.add_argument(f"--{name}", *dashed, *short, dest=name, **how)

    add("model", "-m", required=True, type=legality.model if strict else str)
    add("input", "-i", type=legality.inputs if strict else str)
    add("output", "-o", type=legality.output if strict else str)
    add("output_dirname", type=legality.output if strict else str)
    add("outfmt", default="BIN", choices=["NPY", "BIN", "TXT"])
    add("loop", "-l", type=positive, default=1)
    add("device", "-d", type=devices if era >= "2023-02" else device, default=0)
    add("batchsize", type=positive)
    add("dymBatch", type=int, default=0)
    for name in ("dymHW", "dymDims", "dymShape", "outputSize", "dymShape_range", "acl_json_path"):
        add(name)
    for name in ("debug", "auto_set_dymshape_mode", "auto_set_dymdims_mode", "profiler", "dump", "display_all_summary"):
        add(name, type=boolean, default=False)
    add("pure_data_type", default="zero", choices=["zero", "random"])
    add("output_batchsize_axis", type=nonnegative, default=0)
    add("run_mode", default="array", choices=["array", "files", "tensor", "full"])
    add("warmup_count", type=nonnegative, default=1)
    if era >= "2023-06":
        add("aipp_config")
        add("backend", choices=["trtexec"])
        for name in ("divide_input", "dump_npy", "energy_consumption", "perf", "pipeline"):
            add(name, type=boolean, default=False)
        add("profiler_rename", type=boolean, default=True)
        add("npu_id", type=nonnegative, default=0)
        add("threads", type=positive, default=1)
    return flags


def check(arguments: argparse.Namespace) -> None:
    """RuntimeError for combinations that the real tool refuses, and for flags that the simulator does not play."""
    if arguments.profiler and arguments.dump:
        logger.error("parameter --profiler cannot be true at the same time as parameter --dump, please check them!\n")
        raise RuntimeError("error bad parameters --profiler and --dump")
    if (arguments.profiler or arguments.dump) and arguments.output is None:
        logger.error("when dump or profiler, miss output path, please check them!")
        raise RuntimeError("miss output parameter!")
    if arguments.output_dirname is not None and arguments.output is None:
        logger.error(
            "parameter --output_dirname cann't be used alone. Please use it together with the parameter --output!\n"
        )
        raise RuntimeError("error bad parameters --output_dirname")
    pipelines = () if scenario.load().era >= "2024" else ("pipeline",)
    for name in (*NOT_PLAYED, *pipelines):
        if getattr(arguments, name, None):
            raise RuntimeError(f"the simulated ais_bench does not play --{name}")
    if getattr(arguments, "threads", 1) > 1 and not arguments.pipeline:
        logger.info("need to set --pipeline when setting threads number to be more than one.")
        arguments.threads = 1
