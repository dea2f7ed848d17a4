"""The documents' Dockerfiles parse, and their Kubernetes manifests are what the published schemas want."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.inventory import ROOT
from tests.docs.markdown import BLOCK

KUBERNETES = kubernetes_validate.latest_version()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
_POD_TEMPLATE = {"type": "object", "required": ["spec"]}
_START = {"type": "object", "additionalProperties": {"type": "string"}}
# The part of ray.io/v1's RayCluster that the kit uses, as KubeRay's API reference has it (v1.5).
RAY_CLUSTER = {
    "type": "object",
    "required": ["headGroupSpec"],
    "additionalProperties": False,
    "properties": {
        "rayVersion": {"type": "string"},
        "authOptions": {"type": "object", "properties": {"mode": {"enum": ["disabled", "token"]}}},
        "headGroupSpec": {
            "type": "object",
            "required": ["template"],
            "additionalProperties": False,
            "properties": {"rayStartParams": _START, "template": _POD_TEMPLATE},
        },
        "workerGroupSpecs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["groupName", "maxReplicas", "minReplicas", "template"],
                "additionalProperties": False,
                "properties": {
                    "groupName": {"type": "string"},
                    **{key: {"type": "integer"} for key in ("replicas", "minReplicas", "maxReplicas")},
                    "rayStartParams": _START,
                    "template": _POD_TEMPLATE,
                },
            },
        },
    },
}


def blocks(language: str) -> list[Any]:
    found = []
    for path in DOCUMENTS:
        for number, (_, name, text) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8"))):
            if name == language:
                found.append(pytest.param(textwrap.dedent(text), id=f"{path.name}-{number}"))
    return found


def is_dockerfile(text: str) -> bool:
    return any(line.startswith("FROM ") for line in text.splitlines())


def manifests() -> list[Any]:
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(ROOT.glob("docs/*.yaml")):
        found += [(path.name, document) for document in yaml.safe_load_all(path.read_text()) if document]
    for block in blocks("yaml"):
        documents = [document for document in yaml.safe_load_all(block.values[0]) if isinstance(document, dict)]
        found += [(str(block.id), document) for document in documents if "apiVersion" in document]
    return [pytest.param(document, id=f"{name}-{document['kind']}") for name, document in found]


def validate(manifest: dict[str, Any]) -> None:
    """Raises what the validators raise."""
    if manifest["kind"] != "RayCluster":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    spec = manifest["spec"]
    jsonschema.validate(spec, RAY_CLUSTER)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("text", blocks("dockerfile"))
def test_a_dockerfile_parses(text: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    hadolint = Path(sys.executable).with_name("hadolint")
    rules = [f"--ignore={rule}" for rule in ("DL3006", "DL3042")]  # the base is the kit's own; pip's cache is not kept
    done = subprocess.run([hadolint, *rules, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_dockerfile_is_marked_as_one() -> None:
    unmarked = [
        path.name
        for path in DOCUMENTS
        for _, name, text in BLOCK.findall(path.read_text(encoding="utf-8"))
        if is_dockerfile(textwrap.dedent(text)) and name != "dockerfile"
    ]
    assert unmarked == []


@pytest.mark.parametrize("manifest", manifests())
def test_a_manifest_is_what_its_schema_wants(manifest: dict[str, Any]) -> None:
    validate(manifest)


@pytest.mark.parametrize("field", ["readinesProbe", "volumeMount"])
def test_a_wrong_field_of_a_pod_is_found(field: str) -> None:
    manifest = next(m.values[0] for m in manifests() if m.values[0]["kind"] == "RayCluster")
    manifest["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0][field] = {}
    with pytest.raises(Exception, match=field):
        validate(manifest)


def test_ray_pods_can_become_ready_and_write_where_they_must() -> None:
    """Facts of KubeRay and of the Ascend runtime that no schema holds."""
    cluster = next(m.values[0] for m in manifests() if m.values[0]["kind"] == "RayCluster")["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert all("exec" in container[probe] for probe in ("readinessProbe", "livenessProbe"))
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"] == 1000
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": "ASCEND_VISIBLE_DEVICES", "value": "void"} in head["env"]
    claims = {m.values[0]["metadata"]["name"] for m in manifests() if m.values[0]["kind"] == "PersistentVolumeClaim"}
    volumes = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v} <= claims
