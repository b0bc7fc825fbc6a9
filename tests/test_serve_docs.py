"The page /docs in a real browser that reaches nothing but the server."

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from test_serve import KEY, PATIENT, free_port, started, stopped

from medlab.serve.example import example_bundle

sys.path.insert(0, str(ROOT / "tests" / "browser"))


def seen(address: str, profile) -> tuple[str, list[str]]:
    "The page as the browser has built it, and what the browser complained about (a policy's refusals among it)."
    from check import Missing, chromium

    try:
        browser = chromium()
    except Missing as missing:
        pytest.skip(str(missing))
    words = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    )
    words += " --disable-component-update --enable-logging=stderr --virtual-time-budget=20000 --dump-dom"
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    asked = [browser, *words.split(), alone, f"--user-data-dir={profile}", address]
    ran = subprocess.run(asked, capture_output=True, text=True, timeout=600)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("key", ["", KEY])
def test_the_page_shows_every_address_or_asks_for_the_key(key, tmp_path):
    bundle = example_bundle(tmp_path / "model", patients=200, rounds=8)
    port = free_port()
    server = started(bundle, port, tmp_path / "log", *PATIENT, MEDLAB_API_KEY=key)
    try:
        page, complaints = seen(f"http://127.0.0.1:{port}/docs", tmp_path / "profile")
    finally:
        stopped(server)
    shown, asks = set(re.findall(r'data-path="([^"]+)"', page)), 'id="ask" class="wrapper" hidden' not in page
    if key:
        assert asks and not shown and "risk" not in page.replace("swagger", "")
        assert all("401" in line for line in complaints), complaints
    else:
        assert {"/predict", "/predict/batch", "/v2/models/risk/infer", "/invocations"} <= shown and not asks
        assert not complaints, complaints
