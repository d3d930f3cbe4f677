"""The server's own application on the machines of a Ray cluster.

    pip install -e ".[serve]" "ray[serve]"    # in a checkout
    serve run deploy.ray_serve:build models=tickets=/models/tickets replicas=4 threads=2

Each replica loads the models, so they have to be at the same path on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve

from manyheads.server import ServerSettings, create_app, model_names

__all__ = ["build"]


def build(arguments: Mapping[str, str]) -> Any:
    """Return the application that `serve run` deploys.

    Args:
        arguments: `models`, one or several `[NAME=]PATH` separated by commas; `replicas`, default
            1; `threads` of each replica, default 1.
    """
    threads = int(arguments.get("threads", 1))
    models = arguments["models"].split(",")

    # Ray builds the application in each replica. A function in a function travels to machines that
    # do not have this file.
    def application() -> Any:
        return create_app(model_names(models), ServerSettings(threads=threads))

    # Ray's annotations do not know that a class as first argument is what is deployed.
    deployment: Any = serve.deployment(
        serve.ingress(application)(),
        name="manyheads",
        num_replicas=int(arguments.get("replicas", 1)),
        # Requests beyond this wait in the proxies of Ray; the server batches those it has.
        max_ongoing_requests=256,
        ray_actor_options={"num_cpus": threads},
    )
    return deployment.bind()
