"""Verify the Dockerfile without a Docker engine, by running its lines in an empty root.

    sudo python3 docker/verify.py [--find-links FOLDER] [--keep FOLDER]

debootstrap creates an empty root: Debian 12, whose Python is 3.11, replaces the image that FROM
names. Each line of the Dockerfile then runs in it by chroot, followed by the services of
docker-compose.yml, which train a model, predict with it and serve it.

Needs root, debootstrap, unshare and network access. `--find-links` passes a folder with wheels,
such as PyTorch's CPU build, to pip in PIP_OPTIONS.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CONTEXT = Path(__file__).resolve().parent.parent
SUITE, BASE_IMAGE = "bookworm", "python:3.11-slim"
PYTHON = "/opt/python"  # replaces the base image's Python

# The root has /proc and /dev only while a command runs, because its mounts are private.
ENTER = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$@"'
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && '


@dataclass
class Root:
    """An image under construction: a folder, and the settings of the Dockerfile so far."""

    folder: Path
    env: dict[str, str]
    workdir: str = "/"
    user: str = "root"
    arguments: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def run(self, command: list[str], capture: bool = False) -> str:
        """Run a command inside, as the image's user and in its folder.

        Raises:
            SystemExit: it failed.
        """
        arguments, env = self._inside(command, "")
        done = subprocess.run(
            arguments, env=env, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else None,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"failed with status {done.returncode}: {shlex.join(command)}")
        return done.stdout or ""

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command inside, with files that it can read and not write."""
        arguments, env = self._inside(command, READ_ONLY)
        return subprocess.Popen(
            arguments, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def _inside(self, command: list[str], prepare: str) -> tuple[list[str], dict[str, str]]:
        """Return the arguments and environment that run a command inside."""
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        user = subprocess.run(
            ["chroot", str(self.folder), "id", "-u", self.user], capture_output=True, text=True
        ).stdout.strip()
        enter = ["unshare", "--mount", "sh", "-c", prepare + ENTER, str(self.folder)]
        chroot = [f"--userspec={user}:{user}", str(self.folder), *inside]
        return [*enter, *chroot], {**self.env, "HOME": home}


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Split a Dockerfile into its instructions: the word, and the rest without line breaks."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def carry_out(root: Root, word: str, rest: str) -> None:
    """Apply one instruction of the Dockerfile to the root.

    Raises:
        SystemExit: the instruction is not known here, or its command failed.
    """
    if word == "FROM":
        if rest != BASE_IMAGE:
            sys.exit(f"FROM {rest}: {SUITE} stands in for {BASE_IMAGE} only")
    elif word == "ARG":
        name, _, value = rest.partition("=")
        root.arguments.setdefault(name, shlex.split(value)[0] if value else "")
    elif word == "ENV":
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            root.env[name] = value
    elif word == "WORKDIR":
        root.workdir = rest
        (root.folder / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "USER":
        root.user = rest
    elif word == "COPY":
        *sources, target = shlex.split(rest)
        for source in sources:
            copy(CONTEXT / source, root.folder / root.workdir.lstrip("/") / target)
    elif word == "RUN":
        outer = Root(root.folder, {**root.arguments, **root.env}, root.workdir, root.user)
        outer.run(["sh", "-c", rest])
    elif word == "VOLUME":
        for name in json.loads(rest):
            (root.folder / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "ENTRYPOINT":
        root.entrypoint = json.loads(rest)
    elif word == "CMD":
        root.command = json.loads(rest)
    else:
        sys.exit(f"{word} is not known to this script; teach it")


def copy(source: Path, target: Path) -> None:
    """Copy a file into a folder, or the content of a folder over another, as COPY does."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def make_root(folder: Path, wheels: Path | None) -> Root:
    """Create a Debian root with Python and the network settings of this machine."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv",
         SUITE, str(folder)], check=True,
    )  # fmt: skip
    folder.chmod(0o755)  # a temporary folder is private to its owner; a root is not
    for name in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copyfile(Path("/", name), folder / name)
    inherited = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    path = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    root = Root(folder, {"PATH": path, "LANG": "C.UTF-8", **inherited})
    root.run(["python3", "-m", "venv", PYTHON])
    if wheels:
        copy(wheels, folder / "wheels")
        root.arguments["PIP_OPTIONS"] = "--find-links /wheels"
    return root


def run_service(root: Root, service: dict[str, Any], arguments: list[str]) -> str:
    """Run a service of the compose file as `docker compose run SERVICE ARGUMENTS` does."""
    entrypoint = service.get("entrypoint", root.entrypoint)
    return root.run([*entrypoint, *(arguments or service.get("command", []))], capture=True)


def check_server(root: Root, service: dict[str, Any]) -> None:
    """Start the service `serve`, ask it for a prediction, and stop it.

    Raises:
        SystemExit: it does not start, answer or stop as it should.
    """
    server = root.start([*service["entrypoint"], *service["command"]])
    try:
        assert server.stdout is not None
        if "Serving" not in (line := server.stdout.readline()):
            sys.exit(f"the server does not start: {line}")
        request = urllib.request.Request(
            "http://127.0.0.1:8000/v1/predict", b'{"texts": "John lives in Paris"}',
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = response.read().decode()
        print(answer)
        if '"text":"Paris"' not in answer:
            sys.exit("the answer of the server is not what it should be")
    finally:
        server.terminate()
        status = server.wait(60)
    if status != 128 + signal.SIGTERM:
        sys.exit(f"the server stopped with status {status}")


def main() -> None:
    """Run the Dockerfile, then the services.

    Raises:
        SystemExit: something failed, or the prediction is not what it should be.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--find-links", type=Path, help="folder with wheels for pip")
    parser.add_argument("--keep", type=Path, help="create the root here and keep it")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="manyheads-root-"))
    try:
        root = make_root(folder, options.find_links)
        dockerfile = (CONTEXT / "docker" / "Dockerfile").read_text(encoding="utf-8")
        for word, rest in instructions(dockerfile):
            print(f"==> {word} {rest}", flush=True)
            carry_out(root, word, rest)
        compose = (CONTEXT / "docker" / "docker-compose.yml").read_text(encoding="utf-8")
        services = yaml.safe_load(compose)["services"]
        print("==> docker run manyheads", flush=True)
        print(root.run([*root.entrypoint, *root.command], capture=True))
        print("==> docker compose run train", flush=True)
        print(run_service(root, services["train"], []))
        print("==> docker compose run predict", flush=True)
        answer = run_service(root, services["predict"], ["John lives in Paris"])
        print(answer)
        if 'NER Tags: [("John", 1), ("lives", 0), ("in", 0), ("Paris", 3)]' not in answer:
            sys.exit("the prediction is not what it should be")
        print("==> docker compose up serve")
        check_server(root, services["serve"])
        print("Every line of the Dockerfile and all services ran.")
    finally:
        if not options.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
