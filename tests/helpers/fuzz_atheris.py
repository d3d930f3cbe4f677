"""Coverage-guided fuzzing of the readers (needs `pip install atheris`).

    python tests/helpers/fuzz_atheris.py --runs 200000 --seed 1

Whatever bytes a data file holds, the only allowed error is `DataError`. libFuzzer keeps the
inputs that reach new code, and writes the first finding to a file.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".conll", ".txt", ".parquet")


def main() -> None:
    """Fuzz, and exit with libFuzzer's status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    atheris = importlib.import_module("atheris")
    # Instrumented on import; numpy and other libraries are not.
    with atheris.instrument_imports(include=["manyheads.data.readers", "manyheads.data.records"]):
        readers = importlib.import_module("manyheads.data.readers")
        importlib.import_module("manyheads.data.records")
    from manyheads.errors import DataError

    with tempfile.TemporaryDirectory(prefix="manyheads-atheris-") as temporary:
        folder = Path(temporary)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, ending in enumerate(ENDINGS):
            for name, data in _sound().items():
                if name.endswith(ending):
                    (corpus / name).write_bytes(bytes([number]) + data)

        def one_input(data: bytes) -> None:
            """The first byte selects the format, the others are the file."""
            if not data:
                return
            path = folder / f"x{ENDINGS[data[0] % len(ENDINGS)]}"
            path.write_bytes(data[1:])
            try:
                for _ in readers.read_rows(path):
                    pass
            except DataError:
                pass

        options = [f"-runs={arguments.runs}", f"-seed={arguments.seed}", "-max_len=600"]
        artifacts = f"-artifact_prefix={Path.cwd()}/"
        atheris.Setup([sys.argv[0], *options, artifacts, str(corpus)], one_input)
        atheris.Fuzz()


def _sound() -> dict[str, bytes]:
    columns = b"John\tB-PER\nlives\tO\n\nParis\tB-LOC\n"
    return {
        "a.json": b'[{"tokens": ["a", "b"], "ner": ["O", "B-x"]}]',
        "a.jsonl": b'{"text": "a", "label": "x"}\n{"text": "b", "label": 1}\n',
        "a.csv": b'text,label\n"a, ""b""",yes\n',
        "a.tsv": b"text\tlabel\na b\tyes\n",
        "a.conll": columns,
        "a.txt": columns,
    }


if __name__ == "__main__":
    main()
