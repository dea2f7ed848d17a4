"""Whether a section's commands run natively or in a container.

Docker's client is loaded for a container alone: it takes as long to load as half of the kit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from deploy.containers.native import Native, Runtime
from deploy.hosts.host import Host
from deploy.inventory import Gpu, Npu


def for_gpu(section: Gpu, host: Host, files: Sequence[str], package: PurePosixPath | None = None) -> Runtime:
    """`files` are what the model reads, `package` the host's folder with its package, None where the image has it."""
    env = {} if package is None else {"PYTHONPATH": str(package)}
    if section.runtime == "native":
        return Native(host, shown=env)
    from deploy.containers.container import Container
    from deploy.containers.daemon import DockerDaemon

    inputs = [host.path(file) for file in files] + ([] if package is None else [package])
    return Container(DockerDaemon(section, host), section.image, inputs, env=env)


def for_npu(section: Npu, host: Host) -> Runtime:
    tools = section.tools
    if section.runtime == "native":
        return Native(host, [str(host.path(script)) for script in tools.env_scripts], tools.env)
    from deploy.containers.container import Container, Npus
    from deploy.containers.daemon import DockerDaemon

    return Container(
        DockerDaemon(section, host),
        section.image,
        env_scripts=tools.env_scripts,
        env=tools.env,
        npus=Npus(tools.npu_smi, section.vendor_runtime, 0 if section.devices == "all" else min(section.devices)),
    )
