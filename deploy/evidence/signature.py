"""A run's signature: of its seal.json, by OpenSSH's ssh-keygen, which anyone can verify with ssh-keygen alone.

The kit asks for no passphrase: a key that has one is to be in the agent (`ssh-add KEY`), and ssh-keygen finds it there.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from deploy.errors import KitError
from deploy.evidence.seal import SEAL, SIGNATURE
from deploy.npu import transcript
from stgcn.files import read_record, write_whole

NAMESPACE = "stgcn-kit"  # what a signature is for: one of a commit or of a mail is none of a run
TIMEOUT_S = 120.0  # a hardware key waits for a touch
_FINGERPRINT = re.compile(r"\bSHA256:[A-Za-z0-9+/]{43}")


def fingerprint(key: Path) -> str:
    """`SHA256:...` of a private or public key.

    Raises:
        KitError: it is none.
    """
    return _found(_run("-l", "-E", "sha256", "-f", str(key)), f"{key}: no SSH key", "correct `sign` in the inventory")


def sign(folder: Path, key: Path) -> None:
    """Write the signature of a folder's seal.

    Raises:
        KitError: the key is missing, is not in the agent, or has a passphrase.
    """
    done = _run("-Y", "sign", "-f", str(key), "-n", NAMESPACE, given=folder / SEAL)
    if done.returncode != 0 or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        way_out = f"name a key in `sign`, or, where it has a passphrase, `ssh-add {key}` first"
        raise KitError(f"{key}: the run could not be signed with it ({_said(done)}); {way_out}")
    write_whole(folder / SIGNATURE, done.stdout)


def signed_with(folder: Path) -> str | None:
    """The fingerprint of the key that signed a folder's seal, whoever's it is; None where there is no signature.

    Raises:
        KitError: the signature is not of this seal.
    """
    path = folder / SIGNATURE
    if not path.exists() and not path.is_symlink():
        return None
    done = _run("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path), given=folder / SEAL)
    return _found(done, f"{path}: not a signature of {SEAL} for {NAMESPACE}", "the run was changed after it was signed")


def signer(folder: Path, allowed_signers: Path) -> str:
    """Who signed a folder's seal, by the name that the file of allowed signers gives to the key.

    Raises:
        KitError: nobody whom the file allows.
    """
    path, allowed = str(folder / SIGNATURE), str(allowed_signers)
    if not allowed_signers.is_file():
        raise KitError(f"{allowed}: there is no such file; correct `allowed_signers` in the inventory")
    said = "its key is on no line"
    # Not by find-principals, which tells of a key's first line alone: that may be of another namespace, or expired.
    for name in _principals(read_record(allowed_signers).decode("utf-8", "replace")):
        done = _run("-Y", "verify", "-f", allowed, "-I", name, "-n", NAMESPACE, "-s", path, given=folder / SEAL)
        if done.returncode == 0:
            return name
        if allowed in done.stderr.decode("utf-8", "replace"):  # of a line with this key
            said = _said(done)
    raise KitError(f"{path}: by nobody whom {allowed} allows ({said}); do not rely on the run")


def _principals(text: str) -> list[str]:
    """The first name of each line of a file of allowed signers."""
    fields = re.findall(r'^[ \t]*(?!#)(?:"([^"\n]*)"|(\S+))', text, re.MULTILINE)
    return list(dict.fromkeys((quoted or plain).split(",")[0] for quoted, plain in fields))


def check(folder: Path, announced: str | None, key: Path | None, allowed_signers: Path | None) -> str:
    """Who vouches for a folder's seal, in words.

    `announced` is the key that the verdict says signs it. A signature is demanded where the verdict announces one, or
    this side does: by a `key` of its own, or by the file of those who may sign.

    Raises:
        KitError: the signature is missing, of other content, or of another's key.
    """
    found = signed_with(folder)
    if found is None:
        if announced or key or allowed_signers:
            raise KitError(f"{folder / SIGNATURE}: the run is unsigned, and a signature is demanded; do not rely on it")
        return "unsigned"
    if found != announced:
        raise KitError(f"{folder / SIGNATURE}: by {found}, and the verdict announces {announced or 'no signature'}")
    if allowed_signers:
        return f"signed by {signer(folder, allowed_signers)} ({found})"
    if key and fingerprint(key) != found:
        raise KitError(f"{folder / SIGNATURE}: by {found}, which is not the key {key}; do not rely on the run")
    whose = "your key" if key else "a key that nobody vouches for here, see `allowed_signers`"
    return f"signed with {found} ({whose})"


def _run(*options: str, given: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """ssh-keygen, without a terminal on which it could ask for anything."""
    environment = {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
    environment.pop("SSH_ASKPASS", None)
    try:
        return subprocess.run(
            ["ssh-keygen", *options],
            input=read_record(given) if given else b"",
            capture_output=True,
            env=environment,
            start_new_session=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise KitError(f"{error.filename}: not found; install OpenSSH's client (8.2 or later)") from None
    except subprocess.TimeoutExpired:
        raise KitError(
            f"ssh-keygen did not end within {TIMEOUT_S:g} s; is a hardware key waiting for a touch?"
        ) from None


def _found(done: subprocess.CompletedProcess[bytes], what: str, way_out: str) -> str:
    fingerprint = _FINGERPRINT.search(done.stdout.decode("utf-8", "replace"))
    if done.returncode != 0 or fingerprint is None:
        raise KitError(f"{what} ({_said(done)}); {way_out}")
    return fingerprint[0]


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return transcript.last(done.stderr.decode("utf-8", "replace") or done.stdout.decode("utf-8", "replace"))
