"""Stand-ins for the NPU image's bases, one of each published layout, and for the source of ais_bench.

They have what a build meets: where headers, stubs, scripts and Python are, which package manager there is. CANN_HEADERS
names a folder of real headers (with acl/acl.h), without which a real source of ais_bench does not compile.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

MACHINE = platform.machine()
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[MACHINE]
LIBRARIES = ("ascendcl", "acl_dvpp", "acl_cblas")
# As CANN's own do, it reads variables that need not be set.
SET_ENV = """\
export ASCEND_TOOLKIT_HOME={home}
export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$LD_LIBRARY_PATH
export PYTHONPATH=$ASCEND_TOOLKIT_HOME/python/site-packages:$PYTHONPATH
export PATH=$ASCEND_TOOLKIT_HOME/bin:$PATH
"""
ATC = "#!/bin/bash\necho 'ATC start working now, please wait for a moment.'\n"
PLAIN_ENV = "PATH=/usr/local/python3.11/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A package manager that knows how to bring a compiler that is in the base, out of sight.
MANAGER = """\
#!/bin/bash
[ "$1" = install ] || exit 1
for word; do
    case $word in gcc-c++) mv /opt/compiler/* /usr/bin/ && found=1 ;; python3-devel) ;; patch) exit 1 ;; esac
done
[ "${found:-}" = 1 ]
"""
HIDDEN_COMPILER = """\
RUN mkdir /opt/compiler && mv /usr/bin/gcc* /usr/bin/g++* /usr/bin/c++* /usr/bin/cpp* /opt/compiler/
"""
NO_APT = "RUN rm -f /usr/bin/apt* /usr/bin/dpkg* /usr/bin/patch\n"
# A user, a folder, an entry and settings of the base's own; a Python in a closed folder that has not been given pip,
# and in it a package of the distribution's, which pip cannot take out.
TAKEN = """\
RUN useradd --uid 1000 another && mkdir -m 700 /closed && python3 -m venv --without-pip /closed/python; \\
    printf 'Name: psutil\\nVersion: 5.9.0\\n' >"$(echo /closed/python/lib/python3*/site-packages)/psutil-5.9.0.egg-info"
RUN printf '[global]\\ntarget = /elsewhere\\nno-index = true\\nrequire-virtualenv = true\\n' >/etc/pip.conf
ENV LD_LIBRARY_PATH="" BASH_ENV=/etc/profile PATH=/closed/python/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV PIP_USER=1 PIP_NO_BINARY=:all: PIP_CONSTRAINT=/none
USER another
WORKDIR /closed
ENTRYPOINT ["/bin/false"]
HEALTHCHECK CMD false
"""
# A Python that only .bashrc puts on the PATH, where another is too old; the link to the toolkit leads nowhere.
OLD = """\
RUN mv /usr/local/python3.11 /opt/python && mkdir -p /usr/local/python3.11/bin && \\
    printf '#!/bin/sh\\necho Python 3.6.9\\nexit 1\\n' >/usr/local/python3.11/bin/python3 && \\
    chmod +x /usr/local/python3.11/bin/python3 && \\
    printf 'export PATH=/opt/python/bin:$PATH\\n' >~root/.bashrc && \\
    ln -sfn 5.0.1 /usr/local/Ascend/ascend-toolkit/latest
"""
# An index of packages that is reached from another network alone.
ELSEWHERE = "RUN printf '[global]\\nindex-url = https://a:b@packages.invalid/simple\\nretries = 0\\n' >/etc/pip.conf\n"


def tools_dockerfile(python_image: str) -> str:
    """What every stand-in starts from: a compiler, and Python at the place where the published images have it."""
    return f"""\
FROM {python_image}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
USER 0
COPY docker/build /build
RUN --mount=type=secret,id=network --mount=type=secret,id=ca /build/online /build/tools g++ Python.h
RUN python3 -m venv /usr/local/python3.11 && rm -r /build
"""


def library(path: Path) -> None:
    """An empty shared library for this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    argv = ["gcc", "-shared", "-nostdlib", "-o", str(path), "-x", "c", "/dev/null", f"-Wl,-soname,{path.name}"]
    subprocess.run(argv, check=True)


def headers(folder: Path) -> None:
    if given := os.environ.get("CANN_HEADERS"):
        shutil.copytree(Path(given) / "acl", folder / "acl")
        return
    (folder / "acl").mkdir(parents=True)
    (folder / "acl/acl.h").write_text("#pragma once\n#define STAND_IN 1\n")


def stubs(folder: Path) -> None:
    for name in LIBRARIES:
        library(folder / f"lib{name}.so")


def atc(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ATC)
    path.chmod(0o755)


def up_to_8_3(root: Path, version: str, per_machine: bool) -> None:
    """A toolkit under ascend-toolkit/, `per_machine`: its stubs for each machine, one of them not this one."""
    toolkit = root / "usr/local/Ascend/ascend-toolkit"
    home = toolkit / version
    stub = home / "runtime/lib64/stub"
    stubs(stub / MACHINE if per_machine else stub)
    if per_machine:
        (stub / OTHER).mkdir()
        (stub / OTHER / "libascendcl.so").write_text("of another machine")
    library(home / "runtime/lib64/libascendcl.so")
    headers(home / "runtime/include")
    library(home / f"{MACHINE}-linux/devlib/libascend_hal.so")
    atc(home / "bin/atc")
    (toolkit / "latest").symlink_to(version)
    (toolkit / "set_env.sh").write_text(SET_ENV.format(home="/usr/local/Ascend/ascend-toolkit/latest"))


def up_to_5_0(root: Path, version: str) -> None:
    """A toolkit whose set_env.sh names no home, with folders by component."""
    toolkit = root / "usr/local/Ascend/ascend-toolkit"
    stubs(toolkit / version / "acllib/lib64/stub")
    headers(toolkit / version / "acllib/include")
    library(toolkit / version / f"{MACHINE}-linux/devlib/libascend_hal.so")
    atc(toolkit / version / "atc/bin/atc")
    (toolkit / "set_env.sh").write_text("export PATH=/usr/local/Ascend/ascend-toolkit/latest/atc/bin:$PATH\n")


def runtime(root: Path, version: str) -> None:
    """nnrt alone, which runs OMs and converts none, without headers."""
    stubs(root / f"usr/local/Ascend/nnrt/{version}/runtime/lib64/stub")
    (root / "usr/local/Ascend/nnrt/latest").symlink_to(version)
    (root / "usr/local/Ascend/nnrt/set_env.sh").write_text("export ASCEND_HOME_PATH=/usr/local/Ascend/nnrt/latest\n")


def from_8_5(root: Path, version: str, per_machine: bool, linked: bool = True) -> None:
    """A toolkit as cann-<version>/, with its set_env.sh there alone; `per_machine`: stubs in a folder of their own."""
    ascend = root / "usr/local/Ascend"
    home = ascend / f"cann-{version}"
    lib = home / f"{MACHINE}-linux/lib64"
    stubs(lib / "stub" / MACHINE if per_machine else lib)
    if per_machine:
        library(lib / "libascendcl.so")
    headers(home / f"{MACHINE}-linux/include")
    library(home / f"{MACHINE}-linux/devlib/libascend_hal.so")
    (home / "lib64").symlink_to(f"{MACHINE}-linux/lib64")
    (home / f"{MACHINE}-linux/ascend_toolkit_install.info").write_text(f"version={version}\n")
    atc(home / "bin/atc")
    if linked:
        (ascend / "cann").symlink_to(home.name)
        (ascend / "ascend-toolkit").mkdir()
        (ascend / "ascend-toolkit/latest").symlink_to(f"../{home.name}")
    (home / "set_env.sh").write_text(SET_ENV.format(home=f"/usr/local/Ascend/{home.name}"))


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    # layout: what makes the toolkit, and what makes the rest of the base of one that has all
    "8.3 ubuntu": (
        lambda root: up_to_8_3(root, "8.3.RC1", True),
        "RUN dpkg --purge --force-depends g++ g++-12 gcc gcc-12\n",
    ),
    "8.0 openeuler": (lambda root: up_to_8_3(root, "8.0.0", False), NO_APT),
    "8.5 openeuler": (
        lambda root: from_8_5(root, "8.5.0", False),
        NO_APT + HIDDEN_COMPILER + "COPY yum /usr/bin/yum\n",
    ),
    "9.0 openeuler": (lambda root: from_8_5(root, "9.0.1", True), NO_APT + HIDDEN_COMPILER + "COPY yum /usr/bin/dnf\n"),
    "9.0 alone": (
        lambda root: from_8_5(root, "9.0.1", False, linked=False),
        NO_APT + HIDDEN_COMPILER + "COPY yum /usr/bin/microdnf\n" + TAKEN,
    ),
    "5.0 ubuntu": (lambda root: up_to_5_0(root, "5.0.4"), OLD),
    "nnrt": (lambda root: runtime(root, "7.0.0"), ""),
    "index elsewhere": (lambda root: from_8_5(root, "8.5.0", False), ELSEWHERE),
    "no cann": (lambda root: root.mkdir(parents=True), ""),
    "no compiler": (lambda root: from_8_5(root, "8.5.0", False), NO_APT + HIDDEN_COMPILER),
    "no python": (
        lambda root: from_8_5(root, "8.5.0", False),
        "RUN rm /usr/local/python3.11/bin/* /usr/bin/python3*\n",
    ),
    "closed cann": (lambda root: from_8_5(root, "8.5.0", False), "RUN chmod -R o= /usr/local/Ascend\n"),
    "closed python": (
        lambda root: from_8_5(root, "8.5.0", False),
        "RUN chmod -R o= /usr/local/python3.11/lib\n",
    ),
    "no bash": (lambda root: from_8_5(root, "8.5.0", False), "RUN rm /bin/bash\n"),
}


def base(folder: Path, layout: str, tools: str) -> Path:
    """The context, with its Dockerfile, of a base of `layout` on the image `tools`."""
    make, rest = LAYOUTS[layout]
    make(folder / "root")
    (folder / "yum").write_text(MANAGER)
    (folder / "yum").chmod(0o755)
    (folder / "Dockerfile").write_text(f"FROM {tools}\nENV {PLAIN_ENV}\nCOPY root/ /\n{rest}")
    return folder


def run_files(folder: Path, version: str) -> None:
    """A toolkit and its operator packages as .run files, which install what `up_to_8_3` makes, and SHA256SUMS."""
    folder.mkdir()
    up_to_8_3(folder / "root", version, per_machine=False)
    names = [f"Ascend-cann-{name}_{version}_linux-{MACHINE}.run" for name in ("toolkit", "kernels-310p", "310p-ops")]
    packed = subprocess.run(
        ["tar", "-C", folder / "root/usr/local/Ascend", "-czf", "-", "."], check=True, capture_output=True
    ).stdout
    script = b"""#!/bin/bash
case " $* " in *" --quiet "*" --install-for-all "*) ;; *) exit 9 ;; esac
mkdir -p /usr/local/Ascend && sed '1,/^exit$/d' "$0" | tar -C /usr/local/Ascend --no-same-owner -xzf -
exit
"""
    (folder / names[0]).write_bytes(script + packed)
    # Operator packages want the environment of a toolkit that is there already.
    after = """#!/bin/bash
[ -d "$ASCEND_TOOLKIT_HOME" ] && mkdir -p "$ASCEND_TOOLKIT_HOME/opp" && touch "$ASCEND_TOOLKIT_HOME/opp/${0##*/}"
"""
    for name in names[1:]:
        (folder / name).write_text(after)
    shutil.rmtree(folder / "root")
    sums = subprocess.run(["sha256sum", *names], cwd=folder, check=True, capture_output=True, text=True).stdout
    (folder / "SHA256SUMS").write_text(sums)


_SETUP = """\
import setuptools

setuptools.setup(
    name="ais_bench",
    version="0.0.2",
    long_description=open("{readme}").read(),
    install_requires=open("requirements.txt").read().splitlines(),
    packages=["ais_bench"],
)
"""
_BACKEND = """\
import os
import platform

import setuptools
from pybind11.setup_helpers import Pybind11Extension

machine = platform.machine()
homes = [os.environ.get("CANN_PATH", ""), "/usr/local/Ascend/ascend-toolkit/latest"]
new = f"{machine}-linux"
places = {places}
found = [
    (os.path.join(home, libraries), os.path.join(home, include))
    for home in homes
    for libraries, include in places
    if os.path.exists(os.path.join(home, libraries, "libascendcl.so")) and os.path.isdir(os.path.join(home, include))
]
if not found:
    raise RuntimeError("no CANN")
module = Pybind11Extension(
    "aclruntime",
    ["module.cpp"],
    include_dirs=[found[0][1]],
    library_dirs=[found[0][0]],
    libraries=["ascendcl", "acl_dvpp", "acl_cblas"],
)
setuptools.setup(name="aclruntime", version="0.0.2", ext_modules=[module])
"""
_MODULE = (
    '#include "acl/acl.h"\n#include <pybind11/pybind11.h>\nPYBIND11_MODULE(aclruntime, m) { m.attr("made") = 1; }\n'
)
# What the backend of each time knows of places, and whether README.md, which setup.py reads, is there.
ERAS = {
    "2023-06": ('[("runtime/lib64/stub", "runtime/include")]', "Readme.md"),
    "2025-12": (
        '[(f"runtime/lib64/stub/{machine}", "runtime/include"), (new + "/lib64", new + "/include")]',
        "README.md",
    ),
}


def ais_bench_source(folder: Path, era: str) -> None:
    """The tool's source as it was at a time, as far as its installation goes."""
    places, readme = ERAS[era]
    files = {
        "setup.py": _SETUP.replace("{readme}", "README.md"),
        readme: "A stand-in.\n",
        "requirements.txt": "numpy\ntqdm\nattrs >= 21.3.0",
        "ais_bench/__init__.py": "",
        "ais_bench/__main__.py": "print('stand-in')\n",
        "backend/setup.py": _BACKEND.replace("{places}", places),
        "backend/module.cpp": _MODULE,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
