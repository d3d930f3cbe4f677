"""The files of `deploy/`: proxies, Kubernetes and Ray Serve, run where that is possible here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import typer
import yaml

from manyheads.cli.serve import app as serve_command
from serving import becomes, served_model

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))


def test_the_kubernetes_manifests_follow_their_schemas() -> None:
    kinds = []
    for manifest in manifests():
        kubernetes_validate.validate(manifest, "1.37", strict=True)
        kinds.append(manifest["kind"])
    assert kinds == ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]


def test_a_pod_runs_a_command_that_exists_and_outlives_its_requests() -> None:
    pod = manifests()[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command = typer.main.get_command(serve_command)
    verb, *arguments = container["args"]
    context = command.make_context(verb, list(arguments))
    assert context.params["host"] == "0.0.0.0"
    assert pod["terminationGracePeriodSeconds"] > context.params["timeout"] + 5
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_replicas_of_compose_are_behind_the_proxy() -> None:
    class Loader(yaml.SafeLoader):
        """Reads the tags of compose files."""

    Loader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))
    text = (DEPLOY / "compose.replicas.yml").read_text(encoding="utf-8")
    services = yaml.load(text, Loader)["services"]
    base = yaml.safe_load((ROOT / "docker" / "docker-compose.yml").read_text(encoding="utf-8"))
    assert services.keys() - base["services"].keys() == {"proxy"}
    source = services["proxy"]["volumes"][0].split(":")[0]
    # Compose resolves paths relative to the folder of its first file.
    assert (ROOT / "docker" / source).resolve() == DEPLOY / "nginx.conf"


def test_the_container_is_read_only_and_not_root() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "docker-compose.yml").read_text(encoding="utf-8"))
    service = compose["services"]["serve"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    lines = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER manyheads"]
    pod = manifests()[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def replica(port: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "manyheads", "serve", f"tiny={served_model()}", "--port", str(port),
         "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Serving")
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.soak
@pytest.mark.skipif(
    shutil.which("nginx") is None, reason="needs nginx: apt-get install nginx-light"
)
def test_no_request_is_lost_when_a_replica_behind_nginx_dies(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    listen = free_port()
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    servers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
    text = text.replace("server serve:8000;", servers).replace("listen 8000;", f"listen {listen};")
    (tmp_path / "nginx.conf").write_text(f"daemon off; pid {tmp_path}/nginx.pid;\n{text}")
    command = ["nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    assert subprocess.run([*command, "-t"]).returncode == 0
    with ExitStack() as stack:
        first, _ = (stack.enter_context(replica(port)) for port in ports)
        proxy = stack.enter_context(subprocess.Popen(command))
        stack.callback(proxy.terminate)
        url = f"http://127.0.0.1:{listen}"
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60, trust_env=False))

        def answers() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        assert becomes(answers)
        threading.Timer(0.5, first.kill).start()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            response = client.post("/v1/predict", json={"texts": "John lives in Paris"})
            assert response.status_code == 200, response.text
            assert response.json()["predictions"][0]["text"] == "John lives in Paris"
        assert first.poll() is not None
        assert client.get("/metrics").status_code == 403
        assert client.post("/v1/models/tiny:reload").status_code == 403


RAY = """
import sys
sys.path.insert(0, ROOT)
import httpx, ray
from ray import serve
from ray.cluster_utils import Cluster
from deploy.ray_serve import build
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address)
serve.start(http_options={"host": "127.0.0.1", "port": PORT})
serve.run(build({"models": "tiny=" + MODEL, "replicas": "2"}))
with httpx.Client(base_url="http://127.0.0.1:" + str(PORT), timeout=60, trust_env=False) as client:
    for i in range(20):
        answer = client.post("/v1/predict", json={"texts": ["Paris " + str(i)]}).json()
        assert answer["predictions"][0]["text"] == "Paris " + str(i), answer
    assert client.get("/readyz").json()["status"] == "ready"
replicas = serve.status().applications["default"].deployments["manyheads"].replica_states
assert dict(replicas) == {"RUNNING": 2}, replicas
serve.shutdown()
ray.shutdown()
cluster.shutdown()
print("done")
"""


@pytest.mark.soak
def test_ray_serve_runs_the_application_on_two_workers() -> None:
    pytest.importorskip("ray.serve", reason='needs Ray Serve: pip install "ray[serve]"')
    values = {"ROOT": str(ROOT), "MODEL": str(served_model()), "PORT": free_port()}
    script = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + RAY
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env={
            **os.environ, "RAY_USAGE_STATS_ENABLED": "0",
            # Ray gives its proxies five seconds to start, which a busy machine exceeds.
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "3600",
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "3600",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")
