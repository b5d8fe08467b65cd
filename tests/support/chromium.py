"""A headless Chromium over its debugging pipe, by the standard library: what a page does and looks like."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def executable() -> str | None:
    """Where a Chromium is installed; None if there is none, and on Windows, which has no such pipe."""
    if os.name == "nt":
        return None
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Tab:
    """One page of a browser.

    Attributes:
        requests: addresses that were asked for.
        said: what the console was told: errors, warnings, refusals of the page's own policy.
    """

    read: int
    write: int
    session: str = ""
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _left: bytes = b""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _seen: set[str] = field(default_factory=set)

    def do(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and wait for its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path, width: int, *, dark: bool = False, scripts: bool = True) -> None:
        """Load a file at a width in pixels, and wait until it is loaded and drawn."""
        self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])
        self.do("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._seen.discard("Page.loadEventFired")
        self.do("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._note(self._next())

    def run(self, expression: str) -> Any:
        """The value of a script in the page."""
        done = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def picture(self, *, whole: bool = True, top: float = 0, height: float | None = None) -> bytes:
        """A screenshot as PNG: of the ``whole`` page, or of ``height`` pixels from ``top`` on."""
        size = self.do("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": top,
            "width": size["width"],
            "height": height or size["height"] - top,
            "scale": 1,
        }
        taken = self.do("Page.captureScreenshot", captureBeyondViewport=whole, clip=clip)
        return base64.b64decode(taken["data"])

    def _next(self) -> Any:
        while b"\0" not in self._left:
            more = os.read(self.read, 1 << 20)
            if not more:
                raise AssertionError("the browser ended")
            self._left += more
        line, _, self._left = self._left.partition(b"\0")
        return json.loads(line)

    def _note(self, event: Any) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.said.append(str(params["args"]))
            case "Runtime.exceptionThrown":
                self.said.append(str(params["exceptionDetails"]))
            case "Log.entryAdded":
                self.said.append(params["entry"]["text"])
        self._seen.add(str(event.get("method")))


@contextmanager
def chromium() -> Iterator[Tab]:
    """A browser with one empty page."""
    import fcntl  # not on Windows

    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless=new",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--remote-debugging-pipe",
        ]
        flags += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        words = [str(executable()), *flags, f"--user-data-dir={profile}", "about:blank"]

        def at_3_and_4() -> None:  # where the protocol is spoken
            high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
            for place, one in enumerate(high, 3):
                os.dup2(one, place)

        process = subprocess.Popen(
            words,
            preexec_fn=at_3_and_4,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            tab = Tab(ours_in, ours_out)
            pages = [one for one in tab.do("Target.getTargets")["targetInfos"] if one["type"] == "page"]
            tab.session = tab.do("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)[
                "sessionId"
            ]
            for domain in ("Page", "Network", "Runtime", "Log"):
                tab.do(f"{domain}.enable")
            yield tab
            tab.session = ""
            tab.do("Browser.close")
            process.wait(timeout=60)  # its profile is written until it ends
        finally:
            process.kill()
            process.wait()
            os.close(ours_out)
            os.close(ours_in)
