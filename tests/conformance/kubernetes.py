"""Kubernetes' own API server on loopback: `apiextensions-apiserver`, the part of kube-apiserver for defined kinds.

It is built from its Go module, which takes minutes the first time and seconds then. Storing, validating, scaling
and server-side apply are Kubernetes' code, over a real etcd. Istio's kinds are Istio's own definitions. It has no
Deployments, and nothing may be defined in their group: a kind like them, as far as the driver goes, is in a group
of its own, with the real `scale` and `status` subresources. Nothing makes pods: a test says what is available, as
the controller would.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.cluster.conftest import await_that, free_port
from tests.conformance.certificates import make_certificates
from tests.conformance.conftest import missing, need
from tests.conformance.etcd import Etcd

__all__ = ["APPS", "SCALED", "ApiServer", "build"]

SOURCE = Path(__file__).parent / "kubernetes_go"
#: Where deployments are here, and the one that is scaled.
APPS, SCALED = "apps.example/v1", "apps.example/v1/deployments/acgs2-bus"
_VERSION = "v1.35.0"
_APPLY = {"content-type": "application/merge-patch+json"}
#: What needs the rest of kube-apiserver.
_ADMISSION = (
    "NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,"
    "ValidatingAdmissionPolicy,MutatingAdmissionPolicy"
)
_NOBODY = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "current-context": "none",
}
_DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "deployments.apps.example"},
    "spec": {
        "group": "apps.example",
        "names": {"kind": "Deployment", "plural": "deployments", "singular": "deployment"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"replicas": {"type": "integer", "minimum": 0}},
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    k: {"type": "integer"}
                                    for k in ("replicas", "availableReplicas", "observedGeneration")
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


def build(folder: Path) -> tuple[Path, Path]:
    """Return the API server's program, and the file with Istio's definitions."""
    go = need("go", "golang-go")
    made = folder / "apiserver"
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={_VERSION}"
    built = _go(go, "build", "-ldflags", flags, "-o", str(made), "k8s.io/apiextensions-apiserver")
    if built.returncode and ("dial tcp" in built.stderr or "lookup" in built.stderr):
        missing("its Go modules cannot be fetched")
    assert built.returncode == 0, built.stderr
    # Nothing is built of it, so nothing else has had it fetched.
    fetched = _go(go, "mod", "download", "-json", "istio.io/api")
    if fetched.returncode:
        missing("Istio's module cannot be fetched")
    istio = Path(json.loads(fetched.stdout)["Dir"])
    return made, istio / "kubernetes" / "customresourcedefinitions.gen.yaml"


def _go(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=1200)


class ApiServer:
    """A running API server, and the test's own way to it.

    Args:
        path: a folder for its files.
        port: that it listens on.
    """

    def __init__(self, path: Path, port: int) -> None:
        self._path, self.url = path, f"https://127.0.0.1:{port}"
        context = ssl.create_default_context(cafile=str(path / "ca.pem"))
        context.load_cert_chain(path / "ca-peer.pem", path / "ca-peer.key")
        self._http = httpx.Client(base_url=self.url, verify=context, timeout=10, trust_env=False)

    @classmethod
    @contextmanager
    def running(cls, program: Path, definitions: Path, etcd: str, path: Path) -> Iterator[ApiServer]:
        """Run it, with Istio's kinds and deployments defined, until the block ends."""
        with Etcd(etcd, path, 1).running() as store:
            make_certificates(path, ["ca"], "system:masters")
            (path / "nobody").write_text(json.dumps(_NOBODY))
            port = free_port()
            command = [str(program), f"--etcd-servers={store.endpoints[0]}", f"--secure-port={port}"]
            command += ["--bind-address=127.0.0.1", f"--client-ca-file={path / 'ca.pem'}"]
            command += [
                f"--tls-cert-file={path / 'ca-peer.pem'}",
                f"--tls-private-key-file={path / 'ca-peer.key'}",
            ]
            command += ["--authentication-skip-lookup"]
            command += [
                f"--{n}kubeconfig={path / 'nobody'}" for n in ("", "authentication-", "authorization-")
            ]
            command += ["--enable-priority-and-fairness=false", f"--disable-admission-plugins={_ADMISSION}"]
            log = path / "apiserver.log"
            with log.open("wb") as out:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            server = cls(path, port)
            try:

                def ready() -> bool:
                    assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
                    try:
                        return server._http.get("/apis/apiextensions.k8s.io/v1").status_code == 200
                    except httpx.HTTPError:
                        return False

                await_that(ready, "the API server to be ready", 60)
                server._define(definitions)
                yield server
            finally:
                server._http.close()
                process.kill()
                process.wait()

    def _define(self, definitions: Path) -> None:
        kinds = ("serviceentries", "destinationrules", "virtualservices")
        all_of = [each for each in yaml.safe_load_all(definitions.read_text(encoding="utf-8")) if each]
        wanted = [d for d in all_of if d["metadata"]["name"] in {f"{k}.networking.istio.io" for k in kinds}]
        for each in [_DEPLOYMENT, *wanted]:
            self._http.post(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=each
            ).raise_for_status()
        for path in (f"{APPS}/deployments", *(f"networking.istio.io/v1/{k}" for k in kinds)):
            await_that(lambda path=path: self._http.get(f"/apis/{path}").status_code == 200, path, 30)

    def kubeconfig(self, *contexts: str, url: str = "") -> str:
        """Write a kubeconfig with these contexts and return its path."""
        cluster = {"server": url or self.url, "certificate-authority": str(self._path / "ca.pem")}
        user = {
            "client-certificate": str(self._path / "ca-peer.pem"),
            "client-key": str(self._path / "ca-peer.key"),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": c, "context": {"cluster": "it", "user": "me"}} for c in contexts],
            "current-context": contexts[0],
        }
        file = self._path / f"kubeconfig-{contexts[0]}{'-other' if url else ''}"
        file.write_text(json.dumps(document))
        return str(file)

    def deploy(self, namespace: str, replicas: int, name: str = "acgs2-bus") -> None:
        """Have a deployment with so many replicas, all of them available."""
        body = {
            "apiVersion": APPS,
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": replicas},
        }
        self._http.post(f"/apis/{APPS}/namespaces/{namespace}/deployments", json=body).raise_for_status()
        self.available(namespace, replicas)

    def available(self, namespace: str, count: int, name: str = "acgs2-bus") -> None:
        """Say how many replicas are available, as the deployment controller would."""
        there = self.get(namespace, APPS, f"deployments/{name}")
        status = {
            "replicas": count,
            "availableReplicas": count,
            "observedGeneration": there["metadata"]["generation"],
        }
        path = f"/apis/{APPS}/namespaces/{namespace}/deployments/{name}/status"
        self._http.patch(path, headers=_APPLY, json={"status": status}).raise_for_status()

    def get(self, namespace: str, version: str, path: str) -> dict[str, Any]:
        """Return an object."""
        answer = self._http.get(f"/apis/{version}/namespaces/{namespace}/{path}")
        answer.raise_for_status()
        return dict(answer.json())

    def change(self, namespace: str, version: str, path: str, body: dict[str, Any]) -> None:
        """Change an object as somebody else would."""
        where = f"/apis/{version}/namespaces/{namespace}/{path}"
        self._http.patch(where, headers=_APPLY, json=body).raise_for_status()
