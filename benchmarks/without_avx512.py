"""Run a command as on a processor with AVX2 alone, on one that has more.

    python benchmarks/without_avx512.py FOLDER python benchmarks/inference.py MODEL --data DIR

Libraries ask the processor (CPUID) what it can do. FOLDER gets copies of the packages that compute,
in which every CPUID instruction is replaced by an invalid one; a handler for these answers as the
processor does, but without AVX-512, AVX-VNNI and AMX. `/proc/cpuinfo` is replaced in a mount
namespace. Needs Linux on x86-64, root, gcc and objdump; FOLDER is filled once.

What runs then is what an AVX2 processor would run, at this processor's clock and caches: a
measurement of the instructions, not of another machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("onnxruntime", "openvino", "torch", "numpy", "numpy.libs", "blis")

HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
static struct sigaction before;
static void answer(int signal, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  unsigned char *at = (unsigned char *)r[REG_RIP];
  if (at[0] != 0x0f || at[1] != 0x0b) { sigaction(SIGILL, &before, 0); return; }
  unsigned leaf = r[REG_RAX], part = r[REG_RCX], a, b, c, d;
  __cpuid_count(leaf, part, a, b, c, d);
  if (leaf == 7 && part == 0) {  /* AVX-512 in all its parts, and AMX */
    b &= ~0xdc230000u; c &= ~0x5842u; d &= ~0x03c0010cu;
  }
  if (leaf == 7 && part == 1) { a &= ~0x00a00030u; d &= ~0x00080530u; }  /* AVX-VNNI, AVX10 */
  if (leaf == 13 && part == 0) a &= ~0xe0u;  /* the state of their registers */
  if (leaf == 0x24) a = b = c = d = 0;
  r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d; r[REG_RIP] += 2;
}
__attribute__((constructor(101))) static void install(void) {
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = answer;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &ours, &before);
}
"""

_SECTION = re.compile(r"^\s*\d+ \S+\s+(\w+)\s+(\w+)\s+\w+\s+(\w+).*\n.*CODE", re.M)


def main() -> None:
    """Fill the folder if need be, and run the command in place of this process."""
    folder, command = Path(sys.argv[1]).resolve(), sys.argv[2:]
    if not (folder / "complete").exists():
        fill(folder)
    variables = {
        "LD_PRELOAD": f"{folder}/handler.so",
        "PYTHONPATH": f"{folder}/site:{os.environ.get('PYTHONPATH', '')}",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    }
    inner = 'mount --bind "$0" /proc/cpuinfo && exec env "$@"'
    given = [f"{name}={value}" for name, value in variables.items()]
    shown = str(folder / "cpuinfo")
    os.execvp("unshare", ["unshare", "-m", "sh", "-c", inner, shown, *given, *command])


def fill(folder: Path) -> None:
    """Make the handler, the list of what the processor can do, and the changed packages."""
    shutil.rmtree(folder, ignore_errors=True)
    site = folder / "site"
    site.mkdir(parents=True)
    (folder / "handler.c").write_text(HANDLER, "ascii")
    build = ["gcc", "-O1", "-shared", "-fPIC", "-o", "handler.so", "handler.c"]
    subprocess.run(build, check=True, cwd=folder)
    told = Path("/proc/cpuinfo").read_text("ascii")
    (folder / "cpuinfo").write_text(re.sub(r"\b(avx512|avx_vnni|amx_)\w*", "", told), "ascii")
    for name in PACKAGES:
        spec = find_spec(name.split(".")[0])
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin).parent
        source = package.with_name(name)
        if source.is_dir():
            shutil.copytree(source, site / name)
    for library in sorted(site.rglob("*.so*")):
        if library.is_file() and (count := change(library)):
            print(f"{library.relative_to(site)}: {count} instructions", flush=True)
    (folder / "complete").touch()


def change(library: Path) -> int:
    """Replace the CPUID instructions of a library by UD2; return how many there were."""
    data = bytearray(library.read_bytes())
    if data[:4] != b"\x7fELF" or b"\x0f\xa2" not in data:
        return 0
    shown = subprocess.run(["objdump", "-h", library], capture_output=True, text=True, check=True)
    sections = [[int(number, 16) for number in found] for found in _SECTION.findall(shown.stdout)]
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if not line.rstrip().endswith("cpuid"):
                continue
            address = int(line.partition(":")[0], 16)
            for size, start, offset in sections:
                if start <= address < start + size:
                    place = offset + address - start
                    data[place : place + 2] = b"\x0f\x0b"
                    count += 1
    library.write_bytes(data)
    return count


if __name__ == "__main__":
    main()
