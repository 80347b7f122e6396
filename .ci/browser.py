#!/usr/bin/env python3
"""A real browser loads the demo page: Chromium, headless, driven by chromedriver through selenium.

The page's script comes from another origin, with crossorigin="anonymous" and an integrity digest, and draws a form from a
tenant's configuration. What is checked is what an embedding page depends on; and that a wrong digest is refused. The
browser trusts the demo's certificate by the hash of its key, as nothing is installed into the system for it.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from demo import SCRIPT, TARGET, TOP, Demo, Tally

PATIENCE = 30
# Bodies of up to so many bytes are not coded, and forms of no more are not bettered.
SMALL = 1200
TENANT = "/tenants/acme.json"


def main():
    tally = Tally("browser")
    with Demo() as demo, Browser(demo) as browser:
        widget(tally, demo, browser)
    with tempfile.TemporaryDirectory() as folder:
        with Demo("--dir", spoilt_site(Path(folder))) as demo, Browser(demo) as browser:
            refused(tally, demo, browser)
    return tally.close()


class Browser:
    """Chromium with a profile of its own, and nothing that it does by itself."""

    def __init__(self, demo):
        self.profile = tempfile.mkdtemp(prefix="edge-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
        for argument in (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en",
            f"--user-data-dir={self.profile}", f"--ignore-certificate-errors-spki-list={key_hash(demo.leaf)}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver") or "/usr/bin/chromedriver")
        try:
            self.driver = webdriver.Chrome(options=options, service=service)
        except BaseException:
            shutil.rmtree(self.profile, ignore_errors=True)
            raise
        self.driver.set_page_load_timeout(PATIENCE)

    def __enter__(self):
        return self.driver

    def __exit__(self, *_):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)


def key_hash(certificate):
    """The hash by which Chromium knows a certificate's key."""
    key = subprocess.run(["openssl", "x509", "-in", certificate, "-pubkey", "-noout"], check=True, capture_output=True)
    text = b"".join(line for line in key.stdout.splitlines() if not line.startswith(b"-----"))
    return base64.b64encode(hashlib.sha256(base64.b64decode(text)).digest()).decode()


def widget(tally, demo, browser):
    cdn = f"https://cdn.localhost:{demo.https}"
    settled = {path: settled_size(demo, path) for path in (SCRIPT, TENANT)}
    browser.get(demo.url("/"))
    ready = wait(browser, "#portico-login[data-ready]")
    tally.check(ready, "the widget has drawn its form")
    wait(browser, "html[data-measured]")
    screenshot = TARGET / "browser.png"
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(screenshot))

    script = browser.find_element(By.CSS_SELECTOR, "script[src]")
    tally.check(script.get_attribute("src") == cdn + SCRIPT, "the script is of another origin", script.get_attribute("src"))
    tally.check(script.get_attribute("crossorigin") == "anonymous", "it is asked for without credentials")
    digest = base64.b64encode(hashlib.sha384((TOP / "edge/demo/login.js").read_bytes()).digest()).decode()
    tally.check(script.get_attribute("integrity") == f"sha384-{digest}", "its digest is that of the source")
    tally.check(browser.execute_script("return window.porticoLogin.version") == "1.0.0", "it ran")
    form = browser.find_element(By.CSS_SELECTOR, "#portico-login form")
    tally.check("Acme" in form.text, "the form shows the tenant", form.text.splitlines()[0])

    entries = {entry["name"]: entry for entry in json.loads(browser.execute_script(
        "return JSON.stringify(performance.getEntriesByType('resource'))"))}
    tally.check(set(entries) == {cdn + SCRIPT, cdn + TENANT}, "script and configuration were fetched, no more",
                " ".join(entries))
    for path in (SCRIPT, TENANT):
        entry = entries.get(cdn + path, {})
        encoded, decoded = entry.get("encodedBodySize", 0), entry.get("decodedBodySize", 0)
        sizes = f"{encoded} bytes of {decoded}"
        if decoded > SMALL:
            tally.check(0 < encoded < decoded, f"{path} came coded", sizes)
        else:
            tally.check(0 < encoded == decoded, f"{path} is small, and came as it is", sizes)
        tally.check(encoded == settled[path], f"{path} is as long as what curl gets in br", sizes)
        tally.check(entry.get("nextHopProtocol") == "h2", f"{path} came over HTTP/2", entry.get("nextHopProtocol"))
        tally.check(entry.get("responseStatus", 200) == 200, f"{path} was answered with 200")
    page = browser.execute_script("return performance.getEntriesByType('navigation')[0].nextHopProtocol")
    tally.check(page == "h2", "the page came over HTTP/2", page)

    form.find_element(By.CSS_SELECTOR, "button").click()
    tally.check("fill in" in form.find_element(By.CSS_SELECTOR, "p").text, "the form answers")
    log = [entry["message"] for entry in browser.get_log("browser")]
    tally.check(not log, "nothing was complained about", "; ".join(log))


def settled_size(demo, path):
    """Bytes on the wire in br, once the better form has replaced the first, fast one. What is small stays as it is."""
    until = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["curl", "-sS", "--fail", "--cacert", demo.ca, "--resolve", f"cdn.localhost:{demo.https}:127.0.0.1",
             "-H", "Accept-Encoding: br", "-o", "/dev/null", "-w", "%{size_download} %header{etag}",
             demo.url(path, "cdn.localhost")],
            check=True, capture_output=True, text=True,
        )
        size, etag = done.stdout.split()
        if etag.endswith('-br11"') or int(size) <= SMALL:
            return int(size)
        if time.monotonic() > until:
            raise RuntimeError(f"{path} is still served as {etag}")
        time.sleep(0.1)


def spoilt_site(folder):
    """The sample site with a digest that is not the script's. All on one origin: which port it is on is not known yet."""
    page = (TOP / "edge/demo/index.html").read_text()
    page = page.replace("@@CDN@@", "").replace("@@SRI@@", "sha384-" + base64.b64encode(bytes(48)).decode())
    (folder / "index.html").write_text(page)
    script = folder / SCRIPT.lstrip("/")
    script.parent.mkdir(parents=True)
    shutil.copy(TOP / "edge/demo/login.js", script)
    return str(folder)


def refused(tally, demo, browser):
    browser.get(demo.url("/"))
    wait(browser, "html[data-measured]")
    tally.check(browser.execute_script("return typeof window.porticoLogin") == "undefined", "a spoilt script does not run")
    form = browser.find_elements(By.CSS_SELECTOR, "#portico-login[data-ready]")
    tally.check(not form, "no form is drawn by it")
    log = " ".join(entry["message"] for entry in browser.get_log("browser"))
    tally.check(re.search(r"digest.*integrity", log), "the browser says why", log[:160])


def wait(browser, selector):
    try:
        return WebDriverWait(browser, PATIENCE).until(lambda it: it.find_elements(By.CSS_SELECTOR, selector))
    except Exception:  # noqa: BLE001 - the check that follows says what is missing
        return []


if __name__ == "__main__":
    sys.exit(main())
