"""Opens TensorBoard on a run in headless Chromium and saves what a person sees as a PNG.

    .venv/bin/python docs/screenshot_tensorboard.py runs/demo docs/images/tensorboard.png
    .venv/bin/python docs/screenshot_tensorboard.py runs/demo docs/images/custom_scalars.png custom_scalars

Needs Debian's packages chromium and chromium-driver. The page is served on the loopback address only.
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VIEWS = {  # page and window
    "timeseries": ("?tagFilter=%5E(lr%7Cgrad_norm%2F%5Btc%5D%7Ctrain%7Cval)&smoothing=0#timeseries", "1700,1250"),
    "custom_scalars": ("#custom_scalars&_smoothingWeight=0", "1700,900"),
}
FLAGS = [  # what a browser asks its maker for in the background is not wanted here
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main(run: str, picture: str, view: str = "timeseries") -> None:
    """Serve ``run``, let the browser draw it for a while, save the page ``view``, a key of ``VIEWS``."""
    path, window = VIEWS[view]
    tensorboard, driver = Path(sys.executable).with_name("tensorboard"), shutil.which("chromedriver")
    if driver is None:
        sys.exit("screenshot_tensorboard needs chromium and chromedriver on the PATH, found no chromedriver.")
    with (
        served([str(tensorboard), "--logdir", run, "--host", "127.0.0.1", "--port"], ready="/") as page,
        served([driver, "--port="], ready="/status") as browser,
    ):
        options = {"alwaysMatch": {"goog:chromeOptions": {"args": [*FLAGS, f"--window-size={window}"]}}}
        session = ask(f"{browser}/session", {"capabilities": options})["sessionId"]
        try:
            ask(f"{browser}/session/{session}/url", {"url": page + "/data/logdir"})  # any page of the site
            show_outliers = "localStorage.setItem('_tb_global_settings', '{\"ignoreOutliers\": false}')"
            ask(f"{browser}/session/{session}/execute/sync", {"script": show_outliers, "args": []})
            ask(f"{browser}/session/{session}/url", {"url": page + "/" + path})
            time.sleep(12)
            close_settings = "document.querySelector('[aria-label=\"Close side pane\"], settings-pane button')?.click()"
            ask(f"{browser}/session/{session}/execute/sync", {"script": close_settings, "args": []})
            time.sleep(3)
            shot = ask(f"{browser}/session/{session}/screenshot")
            Path(picture).write_bytes(base64.b64decode(shot))
        finally:
            ask(f"{browser}/session/{session}", method="DELETE")
    print(f"Saved {picture}.")


@contextlib.contextmanager
def served(command: list[str], *, ready: str) -> Iterator[str]:
    """Address of a server that runs as long as the block; the port is put at the end of its command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    full = [*command[:-1], command[-1] + port] if command[-1].endswith("=") else [*command, port]
    process = subprocess.Popen(full, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address + ready, timeout=1).close()
                break
            time.sleep(0.5)
        else:
            sys.exit(f"screenshot_tensorboard: {command[0]} did not answer within a minute.")
        yield address
    finally:
        process.terminate()
        process.wait()


def ask(address: str, content: dict[str, Any] | None = None, *, method: str | None = None) -> Any:
    """One request of the WebDriver protocol."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["value"]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
