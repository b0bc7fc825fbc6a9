"""Proof in a real browser: `python tests/browser/check.py PAGE...` shows a table and fails on any finding.

axe-core (WCAG 2.0 to 2.2, A and AA, and best practice) at 1280 and 320 CSS pixels, light and dark, with everything
folded and unfolded; requests to anywhere (none allowed); what the page's own security policy had to forbid (nothing);
sideways scrolling at 320 pixels (none); printing to A4; html-validate; the Nu HTML checker where Java is.
The npm packages are those of package-lock.json, kept in .medlab/browser; a report needs none of them.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".medlab" / "browser"
# What the Nu checker says wrongly: style properties that are newer than it; and that `img-src data:` blocks a data image,
# which Chromium, asked above with the page's policy in force, does not find.
WRONG = r".*(CSS:|Resource violates Content Security Policy .meta tag.: image “data:).*"


class Missing(RuntimeError):
    "Something that the proof needs is not on this machine."


def chromium() -> str:  # where the browser is
    "The browser named by $CHROMIUM, or the first one that there is."
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome"):
        if name and (found := shutil.which(name)):
            return found
    raise Missing("no Chromium (set CHROMIUM to its path)")


def packages() -> Path:  # a node_modules folder
    "The npm packages of the lock file, installed once."
    if not (shutil.which("node") and shutil.which("npm")):
        raise Missing("no node and npm")
    lock = (HERE / "package-lock.json").read_bytes()
    folder, digest = CACHE / "node_modules", hashlib.sha256(lock).hexdigest()
    stamp = CACHE / "installed"
    if not stamp.exists() or stamp.read_text() != digest:
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, CACHE / name)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            cwd=CACHE, env=os.environ | {"PUPPETEER_SKIP_DOWNLOAD": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Missing(f"npm ci did not work: {done.stderr.strip()[-400:]}")
        stamp.write_text(digest)
    return folder


def looked_at(pages: list[Path], modules: Path, browser: str) -> list[dict]:  # one per page
    "What axe, the network and the printer say."
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            ["node", str(HERE / "look.cjs"), browser, profile, *(page.as_uri() for page in pages)],
            env=os.environ | {"NODE_PATH": str(modules)}, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
    if done.returncode:
        raise Missing(f"the browser did not start or died: {done.stderr.strip()[-600:]}")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != len(pages):
        raise RuntimeError(f"the browser told about {len(found)} of {len(pages)} pages")
    return found


def validated(pages: list[Path], modules: Path) -> dict[str, list[str]]:  # page -> complaints
    "What html-validate says."
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"  # a file: a pipe is cut off when the program ends
        done = subprocess.run(
            ["node", str(modules / "html-validate" / "bin" / "html-validate.mjs"), "--config", str(HERE / "validate.cjs"),
             "--formatter", f"json={told}", *map(str, pages)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not told.exists():
            raise Missing(f"html-validate did not work: {done.stderr.strip()[-600:]}")
        found = json.loads(told.read_text(encoding="utf-8"))
    said = {str(page): [] for page in pages}
    for result in found:
        name = str(Path(result["filePath"]).resolve())
        said[name] = [
            f"line {m['line']} {m['ruleId']}: {m['message']} {m.get('selector') or ''}" for m in result["messages"]
        ]  # fmt: skip
    return said


def nu_checked(pages: list[Path], modules: Path) -> dict[str, list[str]] | None:  # None without Java
    "What the Nu HTML checker says."
    if not shutil.which("java"):
        return None
    jar = next((modules / "vnu-jar").rglob("vnu.jar"))
    done = subprocess.run(
        ["java", "-Xss2m", "-jar", str(jar), "--format", "json", "--stdout", "--exit-zero-always", "--filterpattern", WRONG,
         *map(str, pages)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = {str(page): [] for page in pages}
    for message in json.loads(done.stdout)["messages"]:
        name = message.get("url", "").removeprefix("file:")
        kind = message.get("subType", message["type"])
        if kind in ("error", "fatal", "warning"):
            said.setdefault(name, []).append(
                f"line {message.get('lastLine')} {kind}: {message['message']} "
                f"{re.sub(chr(10), ' ', message.get('extract', ''))[:120]}"
            )
    return said


def check(pages: list[str | Path]) -> tuple[list[dict], list[str]]:  # rows of the table, findings
    "All proofs of some pages."
    pages = [Path(page).resolve() for page in pages]
    if absent := [str(page) for page in pages if not page.is_file()]:
        raise Missing(f"no such page: {', '.join(absent)}")
    browser, modules = chromium(), packages()
    seen, valid, nu = (
        looked_at(pages, modules, browser),
        validated(pages, modules),
        nu_checked(pages, modules),
    )
    rows, findings = [], []
    for page, look in zip(pages, seen, strict=True):
        violations: dict[str, list] = {}
        for violation in look["violations"]:
            violations.setdefault(violation["id"], []).append(violation)
        said = [
            f"axe {name} ({found[0]['impact']}): {found[0]['help']}; {max(v['count'] for v in found)} places, "
            f"in {', '.join(v['view'] for v in found)}\n      " + "\n      ".join(found[0]["nodes"])
            for name, found in violations.items()
        ]
        said += [f"asks for {request}" for request in look["requests"]]
        said += [f"browser: {complaint}" for complaint in look["complaints"]]
        said += [f"scrolls sideways at {where}" for where in look["overflow"]]
        said += [] if look["sheets"] else ["printing to A4 gave no page"]
        said += [f"html-validate {complaint}" for complaint in valid[str(page)]]
        said += [f"Nu checker {complaint}" for complaint in (nu or {}).get(str(page), [])]
        findings += [f"{page.parent.name}/{page.name}: {finding}" for finding in said]
        rows.append(
            {
                "page": f"{page.parent.name}/{page.name}",
                "kB": f"{page.stat().st_size / 1000:.0f}",
                "axe": str(len(violations)),
                "views": str(look["looks"]),
                "requests": str(len(look["requests"])),
                "forbidden": str(len(look["complaints"])),
                "overflow": str(len(look["overflow"])),
                "A4": str(look["sheets"]),
                "html-validate": str(len(valid[str(page)])),
                "Nu": "no Java" if nu is None else str(len(nu.get(str(page), []))),
            }
        )
    return rows, findings


def main(pages: list[str]) -> int:
    if not pages:
        sys.stderr.write("usage: python tests/browser/check.py PAGE...\n")
        return 2
    try:
        rows, findings = check(pages)
    except Missing as error:
        sys.stderr.write(f"no proof was made: {error}\n")
        return 2
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.write("".join(f"  {finding}\n" for finding in findings))
    sys.stdout.write("no findings\n" if not findings else f"{len(findings)} findings\n")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
