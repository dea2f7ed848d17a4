"""`fab init`: look at an NPU host, write a commented inventory that fits it, say what comes next."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.console import say
from deploy.containers.daemon import DockerDaemon
from deploy.containers.native import Native
from deploy.errors import KitError
from deploy.hosts import trust
from deploy.hosts.host import Host
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.ssh import Distrusted, NotTrusted
from deploy.inventory import ROOT, Gpu, Inventory, Npu, chosen, load, local_path, with_inventory
from deploy.npu import probe, survey
from deploy.npu.device import PROBE_TIMEOUT_S, UNKNOWN, Smi, read_cann
from deploy.npu.smi import Chip
from deploy.progress import activity
from stgcn import plain_json
from stgcn.files import write_whole

TEMPLATE = ROOT / "deploy/inventory.template.yaml"
LOCAL = "local"
_LINE = re.compile(r"(?P<lead> *(?:- )?)(?:# )?(?P<key>[a-z_]+):(?: +(?P<value>[^\s#](?:.*?\S)??))?(?P<comment> +#.*)?")
_PLAIN = re.compile(r"[A-Za-z_~/][\w~/.@+-]*")  # text that is the same without quotes
_WORDS = re.compile(r"null|true|false|~", re.IGNORECASE)


@dataclass(frozen=True)
class Answers:
    """What the operator said, by flags or asked; empty where the host or the defaults decide."""

    host: str = ""  # LOCAL, or what ssh takes
    user: str = ""
    port: int | None = None
    key: str = ""
    jump: str = ""
    name: str = ""
    runtime: str = ""
    devices: str = ""
    env_scripts: Sequence[str] = ()
    python: str = ""
    data: str = ""
    labels: str = ""
    checkpoint: str = ""


@dataclass
class Found:
    """What an NPU host has."""

    chips: list[Chip] = field(default_factory=list)
    env_scripts: list[str] = field(default_factory=list)
    python: str | None = None  # that has ais_bench; by its name where the environment finds it so, as the next two
    npu_smi: str | None = None
    atc: str | None = None
    docker: str | None = None  # version
    cann: str = UNKNOWN
    free_bytes: int = 0
    missing: list[str] = field(default_factory=list)  # sentences


def run(answers: Answers, force: bool, ask: Callable[[str], str] | None = None) -> None:
    """Write the inventory that INVENTORY names. `ask` is how the operator is asked, None where nobody can be.

    Raises:
        KitError: an answer is missing or wrong, or the file is there and is not to be overwritten.
    """
    path = local_path(chosen())
    _refuse_overwriting(path, force, ask)
    answers = _asked_for_host(answers, ask)
    section = _section(answers)
    say(f"looking at {section.name} ({section.host or 'this machine'})", "bold")
    devices = _devices(answers.devices)
    try:
        host = _connect(section, ask)
        with activity(f"looking at {section.name}"):
            found: Found | None = _look(host, section)
    except NotTrusted as error:
        if isinstance(error, Distrusted):
            raise
        say(f"  {error}; so its part of the inventory is a guess", "yellow")
        found = None
    if found:
        _show(found)
    values = _values(answers, section, found, devices)
    if ask and found:
        values |= dict(_asked_for_choices(values, answers, ask))
    aside = path.with_name(f".{path.name}.new")
    try:
        write_whole(aside, filled(TEMPLATE.read_text(encoding="utf-8"), values).encode())
        inventory = load(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    say(f"wrote {path}: every key is explained beside it", "green")
    _say_next(inventory, found)


def _refuse_overwriting(path: Path, force: bool, ask: Callable[[str], str] | None) -> None:
    """An inventory as the kit brings it is nobody's work."""
    if force or not path.exists() or path.read_bytes() == TEMPLATE.read_bytes():
        return
    if ask and ask(f"{path} is there. Overwrite it? Type yes: ").strip().lower() == "yes":
        return
    raise KitError(
        f"{path} is there and stays as it is; --force overwrites it, INVENTORY=another.yaml writes another file"
    )


def _asked_for_host(answers: Answers, ask: Callable[[str], str] | None) -> Answers:
    if answers.host:
        return answers
    if not ask:
        raise KitError(f"say which NPU host: --host ADDRESS, --host NAME of ~/.ssh/config, or --host {LOCAL}")
    host = ask(f"NPU host (an address, a name of ~/.ssh/config, or {LOCAL} for this machine) [{LOCAL}]: ").strip()
    user = answers.user
    if host not in ("", LOCAL) and not user:
        user = ask("login there (empty: as ~/.ssh/config has it, else your own name): ").strip()
    return replace(answers, host=host or LOCAL, user=user)


def _section(answers: Answers) -> Npu:
    """The host as it is looked at: natively, whatever will run there."""
    is_here = answers.host == LOCAL
    name = answers.name or re.sub(r"[^A-Za-z0-9._-]", "-", "npu" if is_here else answers.host).strip(".-")[:63]
    try:
        return Npu.model_validate(
            {
                "name": name,
                "connection": "local" if is_here else "ssh",
                "host": None if is_here else answers.host,
                "user": answers.user or None,
                "port": answers.port,
                "key": answers.key or None,
                "jump": answers.jump or None,
                "runtime": "native",
                "workspace": "work/npu-host" if is_here else "stgcn-work",
                "tools": {"env_scripts": list(answers.env_scripts)},
            }
        )
    except ValueError as error:
        raise KitError(f"--host {answers.host}: not a host that an inventory can name ({error})") from None


def _connect(section: Npu, ask: Callable[[str], str] | None) -> Host:
    if section.connection == "local":
        return LocalHost(section.name, local_path(section.workspace))
    try:
        return SSHHost(section, None, Inventory.model_fields["link_timeout_s"].default)
    except NotTrusted as error:
        if isinstance(error, Distrusted) or not ask:
            raise
        trust.run(Inventory(npu=[section]), ask)
        return SSHHost(section, None, Inventory.model_fields["link_timeout_s"].default)


def _look(host: Host, section: Npu) -> Found:
    """Ask a host what it has. Raises KitError where it cannot run a Python at all."""
    found = Found()
    found.free_bytes = host.call("facts", {"workspace": str(host.workspace)})["free_bytes"]
    told = _survey(Native(host))
    scripts = list(section.tools.env_scripts) or told["env_scripts"][:1]
    found.env_scripts = scripts
    if not scripts:
        found.missing.append("no CANN (no set_env.sh below " + ", ".join(probe.ROOTS) + ")")
    environment = Native(host, [str(host.path(script)) for script in scripts])
    told = _survey(environment)
    found.atc, found.npu_smi, found.python = told["atc"], told["npu_smi"], told["python"]
    if not found.python:
        found.missing.append("no Python that has ais_bench and aclruntime")
    try:
        found.chips = Smi(host.name, found.npu_smi or section.tools.npu_smi, environment).chips()
    except KitError as error:
        found.missing.append(str(error))
    with suppress(KitError):
        found.cann = read_cann(section, environment)
    try:
        found.docker = DockerDaemon(section, host).client.version()["Version"]
    except KitError as error:
        if not (found.python and found.atc):
            found.missing.append(str(error))
    return found


def _survey(environment: Native) -> dict[str, Any]:
    argv = ["python3", "-c", Path(survey.__file__).read_text(encoding="utf-8"), *probe.ROOTS]
    done = environment.run(argv, timeout_s=PROBE_TIMEOUT_S)
    try:
        told = plain_json.loads(done.output.strip().splitlines()[-1])
        words = {name: told[name] and str(told[name]) for name in ("python", "npu_smi", "atc")}
        return {"env_scripts": [str(path) for path in told["env_scripts"]], **words}
    except (ValueError, KeyError, TypeError, IndexError):
        raise KitError(
            f"{environment.host.name}: its python3 could not be asked what is there ({done.output.strip()[:200]!r})"
        ) from None


def _show(found: Found) -> None:
    lines = {
        "chips": ", ".join(f"{chip.device}: {chip.name}" for chip in found.chips),
        "CANN": found.env_scripts and f"{found.cann}, {found.env_scripts[0]}",
        "ais_bench": found.python and f"with {found.python}",
        "Docker": found.docker,
        "free disk": f"{found.free_bytes / 1e9:.1f} GB",
    }
    for what, is_there in lines.items():
        say(f"  {what:10}{is_there or 'none'}")
    for sentence in found.missing:
        say(f"  missing:  {sentence}", "yellow")


def _values(answers: Answers, section: Npu, found: Found | None, devices: list[int] | str | None) -> dict[str, Any]:
    """Key -> value; None where the key is to be left out. A key that is not named keeps its default."""
    values: dict[str, Any] = {f"npu.{key}": getattr(section, key) for key in ("name", "connection", "workspace")}
    values |= {f"npu.{key}": getattr(section, key) for key in ("host", "user", "port", "key", "jump")}
    named = {"data": "dataset.data", "labels": "dataset.labels", "checkpoint": "checkpoint"}
    values |= {key: getattr(answers, name) for name, key in named.items() if getattr(answers, name)}
    values["gpu.runtime"] = "docker" if _has_gpu_image() else "native"
    native = found is None or not found.docker or bool(found.python and found.atc)
    values["npu.runtime"] = answers.runtime or ("native" if native else "docker")
    values["npu.devices"] = devices
    if found:
        chips = [chip for chip in found.chips if chip.ailment is None] or found.chips
        values["npu.devices"] = devices or [chip.device for chip in chips[:1]] or None
        tools = {"python": found.python, "npu_smi": found.npu_smi, "atc": found.atc}
        values |= {f"npu.tools.{key}": word for key, word in tools.items() if word}
    scripts = list(answers.env_scripts) or (found.env_scripts if found else [])
    values["npu.tools.env_scripts"] = scripts or None
    if answers.python:
        values["npu.tools.python"] = answers.python
    address = ("npu.host", "npu.user", "npu.port", "npu.key", "npu.jump")
    return {key: value for key, value in values.items() if value is not None or key in address}


def _has_gpu_image() -> bool:
    """Whether the guide's environment is here; without it the kit's own Python does the GPU stage."""
    try:
        return bool(DockerDaemon(Gpu(), LocalHost("gpu", ROOT / "work")).image(Gpu().image))
    except KitError:
        return False


def _devices(text: str) -> list[int] | str | None:
    if text in ("", "all"):
        return text or None
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise KitError(f"--devices {text}: give logical devices as 0 or 0,1, or all")
    return [int(number) for number in text.split(",")]


def _asked_for_choices(
    values: Mapping[str, Any], answers: Answers, ask: Callable[[str], str]
) -> Iterator[tuple[str, Any]]:
    """What can be chosen besides, each with what is proposed."""
    if not answers.devices:
        proposed = ",".join(str(device) for device in values.get("npu.devices", [0]))
        yield "npu.devices", _devices(ask(f"devices to use, or all [{proposed}]: ").strip() or proposed)
    if not answers.runtime:
        proposed = str(values["npu.runtime"])
        yield "npu.runtime", ask(f"run the tools native (on the host) or in docker? [{proposed}]: ").strip() or proposed


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with these values, by `section.key`; a key whose value is None becomes a comment.

    Raises:
        KitError: the template lacks a key.
    """
    lines, left, above = [], dict(values), {0: ""}
    for line in template.splitlines():
        if found := _LINE.fullmatch(line):
            column = len(found["lead"])
            above = {at: name for at, name in above.items() if at < column} | {column: found["key"]}
            path = ".".join(above[at] for at in sorted(above))
            if path in left:
                line = _with_value(found, left.pop(path))
        lines.append(line)
    if left:
        raise KitError(f"{TEMPLATE}: has no {', '.join(left)}")
    return "\n".join(lines) + "\n"


def _with_value(found: re.Match[str], value: Any) -> str:
    lead, key, old, comment = found.group("lead", "key", "value", "comment")
    shown = f"{lead}# {key}: {old}" if value is None else f"{lead}{key}: {_yaml(value)}"
    if not comment:
        return shown
    remark = comment.lstrip()
    return shown.ljust(found.end("comment") - len(remark) - 1) + " " + remark


def _yaml(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _WORDS.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)  # which is YAML


def _say_next(inventory: Inventory, found: Found | None) -> None:
    """The commands up to the first run."""
    if found is None:
        say(f"next:    `{with_inventory('fab trust')}`; then the same `fab init` with --force looks at the host")
        return
    image = ["fab push-image"] if any(host.runtime == "docker" for host in inventory.npu) else []
    commands = [*image, "fab doctor", "fab run"]
    say(f"next:    {', '.join(f'`{with_inventory(command)}`' for command in commands)}")


def asker() -> Callable[[str], str] | None:
    """How the operator is asked; None where nobody sits there."""
    if not sys.stdin.isatty():
        return None

    def ask(question: str) -> str:
        try:
            return input(question)
        except EOFError:
            return ""

    return ask
