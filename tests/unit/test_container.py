"""What a container is given: the command line that is shown and recorded, for every kind of host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from docker.errors import APIError

from deploy.containers.container import DRIVER_FILES, NPU_NODES, VERSION_FILES, Container, Npus
from deploy.containers.daemon import DockerDaemon, telling
from deploy.containers.native import Native
from deploy.errors import KitError
from deploy.hosts.host import Completed
from deploy.hosts.local import LocalHost
from deploy.inventory import Gpu

WORKSPACE = PurePosixPath("/home/a/work")
SHIELD = [
    "--init",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--tmpfs=/tmp:exec",
]


class Played(LocalHost):
    """A host that has some files, programs and a user."""

    def __init__(self, there: Sequence[str] = (), uid: int = 1234, gid_of_nodes: int = 1001) -> None:
        super().__init__("played", Path(WORKSPACE))
        self.there, self.uid = dict.fromkeys(there, gid_of_nodes), uid

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        if argv[0] == "sh" and "id -u" in argv[2]:
            return Completed(0, f"{self.uid}\n{self.uid}\n")
        if argv[0] == "stat":
            return Completed(0, "".join(f"{self.there[node]}\n" for node in argv[4:] if node in self.there))
        if argv[0] == "sh" and "command -v" in argv[2]:
            return Completed(0 if argv[3] in self.there else 1, "")
        return Completed(0, "".join(f"{path}\n" for path in argv[4:] if path in self.there))


def container(host: Played, **more: Any) -> Container:
    return Container(DockerDaemon(Gpu(connection="local"), host), "image", **more)


def flags(runtime: Any, *command: str, folder: str | None = None) -> list[str]:
    argv = runtime.argv(list(command), PurePosixPath(folder) if folder else None)
    assert argv[:2] == ["docker", "run"]
    return list(argv[2 : argv.index("image")])


def mounts(given: Sequence[str], more_than: Sequence[str] = ("/etc/passwd",)) -> list[str]:
    """The mounts of the command's own, not those that every container gets."""
    found = [flag for flag in given if flag.startswith("--mount")]
    return [flag for flag in found if not any(f"target={path}" in flag for path in more_than)]


def test_every_container_is_shielded_and_never_privileged() -> None:
    for uid, user in ((1234, "1234:1234"), (0, "1000:1000")):
        given = flags(container(Played(uid=uid)), "true")
        assert set(SHIELD) <= set(given)
        assert f"--user={user}" in given
        assert not any("privileged" in flag and "no-new" not in flag for flag in given)


def test_a_steps_folder_and_what_its_command_names_to_read_are_mounted_where_they_are() -> None:
    inputs = [PurePosixPath("/data/val,data.npy"), PurePosixPath("/data/other.npy")]
    runtime = container(Played(), inputs=inputs)
    run, copy = f"{WORKSPACE}/.stgcn-kit/runs/a", f"{WORKSPACE}/.stgcn-kit/files/0123456789abcdef"
    words = ("--data_path", "/data/val,data.npy", "--output", f"{run}/x", f"--model={copy}/a.om", f"{run}/input")
    given = flags(runtime, "python", *words, folder=run)
    assert mounts(given) == [
        f"--mount=type=bind,source={run},target={run}",
        f"--mount=type=bind,source={copy},target={copy},readonly",
        f"--mount=type=bind,source={run}/input,target={run}/input,readonly",
        '--mount=type=bind,"source=/data/val,data.npy","target=/data/val,data.npy",readonly',
    ]
    assert mounts(flags(runtime, "python", "-V")) == []


def test_one_real_device_is_handed_in_under_the_number_that_its_driver_gives_it() -> None:
    host = Played([*NPU_NODES, "/usr/local/bin/npu-smi", "/usr/local/Ascend/driver/lib64", "npu-smi"])
    runtime, number = container(host, npus=Npus("npu-smi")).on_device(6)
    given = flags(runtime, "atc")
    assert number == 0
    assert [flag for flag in given if flag.startswith("--device")] == [
        f"--device={node}:{node}:rw" for node in ("/dev/davinci6", *NPU_NODES)
    ]
    assert [flag for flag in given if flag.startswith("--group-add")] == ["--group-add=1001"]
    driver = mounts(given)
    assert len(driver) == 2
    assert all(flag.endswith(",readonly") for flag in driver)
    assert {flag.split("source=")[1].split(",")[0] for flag in driver} <= set(DRIVER_FILES)
    assert isinstance(runtime.of_host(), Native)


def test_a_simulated_host_has_nothing_to_hand_in_and_no_tools_of_its_own() -> None:
    simulated = container(Played(), npus=Npus("npu-smi"))
    runtime, number = simulated.on_device(1)
    assert (runtime, number) == (simulated, 1)
    assert simulated.of_host() is simulated
    given = flags(runtime, "atc")
    assert mounts(given) == []
    assert not any(flag.startswith(("--device", "--group-add")) for flag in given)


def test_the_vendors_runtime_hands_the_device_in_and_the_kit_what_it_leaves_out() -> None:
    host = Played([*NPU_NODES, "/dev/davinci3", *DRIVER_FILES], gid_of_nodes=1005)
    runtime, number = container(host, npus=Npus("npu-smi", vendor_runtime=True)).on_device(3)
    given = flags(runtime, "atc")
    assert number == 0
    assert {"--runtime=ascend", "--env=ASCEND_VISIBLE_DEVICES=3", "--group-add=1005"} <= set(given)
    assert not any(flag.startswith("--device") for flag in given)
    assert {flag.split("source=")[1].split(",")[0] for flag in mounts(given)} == set(VERSION_FILES)


def test_a_conversion_on_the_vendors_runtime_is_shown_a_device_for_the_drivers_libraries() -> None:
    runtime = container(Played(), npus=Npus("npu-smi", vendor_runtime=True, first=2))
    assert "--env=ASCEND_VISIBLE_DEVICES=2" in flags(runtime, "atc")


def test_a_gpu_is_handed_in_where_the_engine_can() -> None:
    plain = container(Played())
    assert not [flag for flag in flags(plain, "python") if "gpu" in flag]
    plain.daemon.hands_in_gpus = True
    with_gpu = plain.with_gpu(1)
    assert isinstance(with_gpu, Container)
    assert "--gpus=device=1" in flags(with_gpu, "python")
    (asked,) = with_gpu._options(["python"], None)["device_requests"]
    assert (asked["DeviceIDs"], asked["Capabilities"]) == (["1"], [["gpu"]])
    plain.daemon.hands_in_gpus = False
    assert plain.with_gpu(0) is None


def test_a_runs_detailed_log_is_in_its_folder_and_its_user_has_a_name() -> None:
    given = flags(container(Played(), env={"HOME": "/home/own"}), "atc", folder=f"{WORKSPACE}/run")
    assert {f"--env=ASCEND_PROCESS_LOG_PATH={WORKSPACE}/run/ascend-log", "--env=HOME"} <= set(given)
    assert any("target=/etc/passwd" in flag and flag.endswith("readonly") for flag in given)
    native = Native(Played(), env={"ASCEND_PROCESS_LOG_PATH": "/var/log/mine"}).argv(["atc"], WORKSPACE)
    assert not [word for word in native if word.startswith("ASCEND_PROCESS_LOG_PATH")]  # the user's own, in no argument


def test_the_users_variables_arrive_and_are_in_no_argument() -> None:
    given = flags(container(Played(), env={"TOKEN": "hunter2"}), "atc")
    assert "--env=TOKEN" in given
    assert "hunter2" not in str(given)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("unknown or invalid runtime name: ascend", "install the Ascend Docker Runtime"),
        (
            "OCI runtime create failed: runc create failed: error running prestart hook #0: exit status 255, "
            "stderr: prestart-hook ...check the write permission!\nfailed to mount src: /usr/local/bin/npu-smi.",
            "mount src: /usr/local/bin/npu-smi.*ascend-docker-runtime",
        ),
        (
            'error gathering device information while adding custom device "/dev/davinci9": no such file or directory',
            "`devices` in the inventory are there",
        ),
        ("davinci[davinci0] already in use", "no other container holds them"),
        ('exec: "bash": executable file not found in $PATH: unknown', "an image with bash"),
        ("conflict: something else", "refuses to run atc: conflict: something else$"),
    ],
)
def test_what_an_engine_refuses_is_told_with_what_to_do(said: str, cure: str) -> None:
    with pytest.raises(KitError, match=cure), telling("npu-a", "run atc"):
        raise APIError("500 Server Error", explanation=said)
