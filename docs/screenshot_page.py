"""Opens a page that `report` wrote in headless Chromium and saves what a person sees as a PNG.

    .venv/bin/python docs/screenshot_page.py runs/demo/report.html docs/images/report.png 1280x1345 light

Needs Debian's packages chromium and chromium-driver, as screenshot_tensorboard.py does. Nothing is served.
"""

import base64
import shutil
import sys
from pathlib import Path
from typing import Any

from screenshot_tensorboard import FLAGS, ask, served


def main(page: str, picture: str, size: str = "1280x1345", scheme: str = "light") -> None:
    """Save the top of ``page``, in a window of ``size``, as a reader sees it who prefers ``scheme``."""
    width, height = map(int, size.split("x"))
    driver = shutil.which("chromedriver")
    if driver is None:
        sys.exit("screenshot_page needs chromium and chromedriver on the PATH, found no chromedriver.")
    options = {"alwaysMatch": {"goog:chromeOptions": {"args": [*FLAGS, "--hide-scrollbars"]}}}
    with served([driver, "--port="], ready="/status") as browser:
        session = f"{browser}/session/{ask(f'{browser}/session', {'capabilities': options})['sessionId']}"

        def command(name: str, **settings: Any) -> Any:
            return ask(f"{session}/goog/cdp/execute", {"cmd": name, "params": settings})

        try:
            command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            ask(f"{session}/url", {"url": Path(page).resolve().as_uri()})
            Path(picture).write_bytes(base64.b64decode(command("Page.captureScreenshot")["data"]))
        finally:
            ask(session, method="DELETE")
    print(f"Saved {picture}.")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
