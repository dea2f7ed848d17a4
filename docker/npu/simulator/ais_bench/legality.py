"""The paths that ais_bench of 2024 refuses: each check prints its reason and says whether the path will do."""

import argparse
import logging
import os
import re
import stat
from pathlib import Path

logger = logging.getLogger(__name__)
FOLDER_MODE = 0o750


def _acceptable(path: str, write: bool) -> bool:
    if re.search(r"[^_A-Za-z0-9/.-]", path):
        logger.error(f"path:{path} contains illegal char, legal chars include A-Z a-z 0-9 _ - / .")
        return False
    if Path(path).is_symlink():
        logger.error(f"path :{path} is a soft link, not supported, please import file(or directory) directly")
        return False
    if not Path(path).exists():
        if not write:
            logger.error(f"path: {path} not exist, please check if file or dir is exist")
        return write
    status = Path(path).stat()
    if status.st_uid != os.geteuid() and status.st_gid not in os.getgroups():
        logger.error(f"current user isn't path:{path}'s owner or ownergroup")
        return False
    mode = stat.S_IMODE(status.st_mode)
    if write and mode & ~FOLDER_MODE:
        logger.error(
            f"The file {path} has mode {mode:o}, as export file(or directory), permission should not be over 0o750"
        )
        return False
    if not write and mode & (stat.S_IWGRP | stat.S_IWOTH):
        logger.error(
            f"The file {path} is group writable, or is others writable, as import file(or directory), "
            "permission should not be over 0o755(rwxr-xr-x)"
        )
        return False
    return True


def model(value: str) -> str:
    """A type for argparse: an OM that may be read."""
    if not _acceptable(value, write=False) or not Path(value).is_file() or Path(value).suffix != ".om":
        raise argparse.ArgumentTypeError(f"om path:{value} is illegal. Please check.")
    return value


def inputs(value: str) -> str:
    """A type for argparse: a comma-separated list of files or folders that may be read."""
    for path in value.split(","):
        if not _acceptable(path, write=False):
            raise argparse.ArgumentTypeError(f"input path:{path} is illegal. Please check.")
    return value


def output(value: str) -> str:
    """A type for argparse: a folder that may be written or made."""
    if not _acceptable(value, write=True):
        raise argparse.ArgumentTypeError(f"output path:{value} is illegal. Please check.")
    return value


def check_file(path: Path) -> None:
    """Each file of an input folder, whatever its name."""
    if not _acceptable(str(path), write=False):
        raise RuntimeError(f"input data:{path} is illegal")
