"""Chromium without a window, driven over a pipe by its DevTools protocol, cut off from every machine but this one."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WORDS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--use-angle=swiftshader",  # WebGL on the processor
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--force-color-profile=srgb",
    "about:blank",
]
KEYS = {"ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}


class Browser:
    """One page.

    requests    the addresses that it asked since it was opened.
    complaints  errors of scripts, and of the content policy.
    """

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.held, self.number, self.session = b"", 0, ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: Any) -> Any:
        """A command's result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(120)  # a rendering in software may take long
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self.held:
            assert select.select([self.read], [], [], seconds)[0], "the browser does not answer"
            more = os.read(self.read, 1 << 16)
            assert more, "the browser ended"
            self.held += more
        one, _, self.held = self.held.partition(b"\0")
        found: dict[str, Any] = json.loads(one)
        self._noted(found.get("method", ""), found.get("params", {}))
        return found

    def _noted(self, event: str, said: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.complaints.append(str(details.get("exception", {}).get("description", details["text"])))
        elif event == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript in the page."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until it is true in the page."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, (expression, self.evaluate("document.body.innerText"), self.complaints)
            time.sleep(0.05)

    def open(self, url: str, width: int = 1200, height: int = 760, phone: bool = False) -> None:
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )
        self.requests = []
        self.tell("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && document.body?.dataset.state !== undefined")

    def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=[str(each) for each in files])

    def key(self, key: str) -> None:
        more: dict[str, Any] = {"windowsVirtualKeyCode": KEYS[key]} if key in KEYS else {"text": key}
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, **more)

    def drag(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """With the left button, in CSS pixels."""
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=begin[0], y=begin[1])
        pressed = {"button": "left", "buttons": 1, "clickCount": 1}
        self.tell("Input.dispatchMouseEvent", type="mousePressed", x=begin[0], y=begin[1], **pressed)
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=end[0], y=end[1], button="left", buttons=1)
        self.tell("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], button="left", clickCount=1)

    def wheel(self, at: tuple[float, float], by: float) -> None:
        self.tell("Input.dispatchMouseEvent", type="mouseWheel", x=at[0], y=at[1], deltaX=0, deltaY=by)

    def picture(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"]))
        return path


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, and ended afterwards."""
    assert CHROMIUM
    words = [CHROMIUM, *WORDS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    theirs, write = os.pipe()
    read, back = os.pipe()

    def as_they_are_expected() -> None:
        kept = os.dup(back)  # which may itself be 3
        os.dup2(theirs, 3)
        os.dup2(kept, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [*words[:-1], f"--user-data-dir={profile}", words[-1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_they_are_expected,
            pass_fds=(3, 4),
        )
        os.close(theirs)
        os.close(back)
        try:
            yield Browser(read, write)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(read)
            os.close(write)
