"""The battery here and under emulated processors: the same bits? `check.py [CPU ...]`, by default Haswell and EPYC.

Needs qemu-user (Debian: `apt-get install qemu-user`). Each piece runs in a process of its own, since an emulated one is some
fifty times slower and a crash must not take the others along. Exit status 0 where every piece agrees everywhere.
"""

import json
import os
import shutil
import site
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from battery import PIECES

from medlab.core.arithmetic import settings

BATTERY = Path(__file__).with_name("battery.py")


def digest(cpu: str | None, piece: str) -> str | None:
    "SHA-256 of a piece on this processor (None) or an emulated one; None where its library isn't installed."
    python = [str(Path(sys.executable).resolve())]
    emulator = ["qemu-x86_64", "-cpu", cpu] if cpu else []
    done = subprocess.run(
        [*emulator, *python, str(BATTERY), piece], capture_output=True, text=True, check=False,
        env=os.environ | settings("portable") | {"PYTHONPATH": site.getsitepackages()[0], "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or [f'signal {-done.returncode}'])[-1]}"
    return json.loads(done.stdout).get(piece)


def main(cpus: list[str]) -> int:
    if not shutil.which("qemu-x86_64"):
        sys.exit("this needs qemu-user (Debian: apt-get install qemu-user)")
    wrong = 0
    with ThreadPoolExecutor(len(cpus)) as pool:
        for piece in PIECES:
            here = digest(None, piece)
            if (here or "").startswith("failed"):
                wrong += 1
                print(f"{piece:20s} {here}", flush=True)
                continue
            if here is None:
                print(f"{piece:20s} left out: its library is not installed", flush=True)
                continue
            found = dict(zip(cpus, pool.map(lambda cpu, piece=piece: digest(cpu, piece), cpus), strict=True))
            said = [
                f"{cpu}: {'equal' if d == here else d if (d or '').startswith('failed') else 'DIFFERS'}"
                for cpu, d in found.items()
            ]
            wrong += any(d != here for d in found.values())
            print(f"{piece:20s} {here[:12]}  {', '.join(said)}", flush=True)
    print(f"{'all pieces equal' if not wrong else f'{wrong} pieces differ'} here and under {', '.join(cpus)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["Haswell", "EPYC"]))
