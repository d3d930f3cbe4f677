"""`manyheads push`: pushes a model to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.options import ModelFolder

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def push(
    model: ModelFolder,
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="The name on the hub.")],
    *,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository visible to its owner alone.")
    ] = False,
) -> None:
    """Push a model to the Hugging Face hub: safetensors, JSON and the model card alone.

    Log in first: hf auth login. Exported graphs are not pushed. Others can then run
    `manyheads predict USER/NAME "a text"`.
    """
    from manyheads.storage import push_model, resolve_model

    pushed = push_model(resolve_model(model), name, private=private)
    print(f'Pushed: {pushed}\nUse it: manyheads predict {name} "your own text"')
