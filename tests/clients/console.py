"""The web console in a headless Chromium, as a person uses it: `console.py one|two URL TOKENFILE [PICTURES]`.

`one` goes through everything on a machine with the store `local`, under a load that it makes itself; `two` looks at a group
from outside of its first machine. With PICTURES, a directory, it leaves pictures there for people to look at. Ends at the
first thing that is not as it should be; prints `console: STEP, STEP, …` at the end."""
import base64
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import redis
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

kind, url, token_file = sys.argv[1], sys.argv[2].rstrip("/"), sys.argv[3]
pictures = sys.argv[4] if len(sys.argv) > 4 else None
token = open(token_file).read().strip()
PATIENCE_S = 60
steps = []


def step(name):
    steps.append(name)
    print(f"  {name}", file=sys.stderr)


def fail(what):
    if pictures:
        picture("failed")
    sys.exit(f"after {steps}: {what}\non the page:\n{driver.find_element(By.TAG_NAME, 'body').text[:3000]}")


def until(what, so):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        value = so()
        if value:
            return value
        if time.monotonic() > deadline:
            fail(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.1)


def check(so, what):
    if not so:
        fail(what)


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    profile = tempfile.mkdtemp(prefix="chromium-", dir=os.environ["HOME"])
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-proxy-server", "hide-scrollbars",
             f"user-data-dir={profile}", "window-size=1360,1000"]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


driver = browser()
told = []
# What the browser asks of itself when it opens is not the page's.
driver.get("about:blank")
driver.get_log("performance")


def by_id(name):
    return driver.find_element(By.ID, name)


def text(selector):
    """The text of the first element of that kind, or nothing: the page may be changing it."""
    script = "return document.querySelector(arguments[0])?.textContent ?? ''"
    return driver.execute_script(script, selector)


def picture(name):
    if pictures:
        driver.execute_script("window.scrollTo(0, 0)")
        whole = driver.execute_script("return document.documentElement.scrollHeight")
        width = driver.execute_script("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": whole, "scale": 1}
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        with open(os.path.join(pictures, f"{name}.png"), "wb") as file:
            file.write(base64.b64decode(shot["data"]))


def prefer(theme, motion="no-preference"):
    features = [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": motion}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wide(width, height=1000):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def background():
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def api(method, path):
    """A call from the machine itself, as curl with the token makes it."""
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url + path, method=method, headers=headers)) as answer:
        return json.load(answer)


def status(store="local"):
    return api("GET", f"/admin/v1/stores/{store}")["status"]


def press(*keys):
    """Keys to whatever has the focus."""
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def focused():
    return driver.execute_script("const e = document.activeElement; return e.getAttribute('aria-label') ?? (e.id || e.textContent)")


def tab_to(name):
    """Goes there with the tab key alone; where it shows, the focus is seen."""
    for _ in range(80):
        press(Keys.TAB)
        if focused() == name:
            outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
            check(outline != "none", f"the focus on {name} is not seen")
            return
    fail(f"the tab key does not come to {name}")


def log_in():
    driver.get(url + "/")
    until("the form is there", lambda: by_id("login").is_displayed())
    check(not by_id("console").is_displayed(), "figures are shown to nobody in particular")
    check(focused() == "token", "the focus is not on the token")
    press("0" * 64, Keys.ENTER)
    until("a wrong token is refused", lambda: "token is not this manager's" in text("#wrong"))
    press(token, Keys.ENTER)
    until("the figures are there", lambda: by_id("console").is_displayed() and text("#live") == "● Live")
    check(not by_id("login").is_displayed(), "the form is still there")
    step("log in")


def secret_is_kept():
    """The token is nowhere but in the storage of the tab, and nothing was asked of anybody else."""
    kept = driver.execute_script(
        "return [location.href, document.cookie, JSON.stringify(localStorage), document.documentElement.outerHTML].join(' ')")
    check(token not in kept, "the token is in the address, a cookie or the page")
    check(driver.execute_script("return sessionStorage.getItem('dkv-token')") == token, "the token is not in the tab's storage")
    collect()
    calls = [one for one in told if one["method"] == "Network.requestWillBeSent"]
    check(len(calls) > 10, f"only {len(calls)} requests were seen")
    for one in calls:
        asked = one["params"]["request"]["url"]
        check(asked.startswith(url + "/"), f"asked elsewhere: {asked}")
    sent = [one for one in told if "requestWillBeSent" in one["method"]]
    signed = [one for one in sent if "DKV-HMAC-SHA256" in json.dumps(one)]
    check(len(signed) > 10 and token not in json.dumps(sent), "the token itself was sent")
    step("no request elsewhere, no token on the wire")


def collect():
    told.extend(json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))


def quiet(expected):
    """The console of the browser has no errors but the refusals that were provoked."""
    for entry in driver.get_log("browser"):
        known = any(word in entry["message"] for word in expected)
        check(known or entry["level"] not in ("SEVERE", "WARNING"), f"the browser says: {entry}")
    step("no errors in the console")


def load(stop):
    """Reads, writes and removals in waves, light enough to leave the machine to the rest."""
    clients = [redis.Redis(port=port) for port in (7861, 7862)]
    begun = time.monotonic()
    while not stop.is_set():
        wave = 1 + 0.6 * math.sin((time.monotonic() - begun) / 9)
        try:
            pipe = random.choice(clients).pipeline(transaction=False)
            for _ in range(int(40 * wave)):
                pipe.get(f"key:{random.randrange(20_000)}")
            for _ in range(int(14 * wave)):
                pipe.set(f"key:{random.randrange(20_000)}", random.randbytes(random.choice((32, 200, 1000))))
            for _ in range(4):
                pipe.delete(f"key:{random.randrange(20_000)}")
            pipe.execute()
        except redis.RedisError:
            time.sleep(0.2)
        time.sleep(0.02)


def figures():
    until("operations are shown", lambda: text("#tiles [data-key=Operations] dd") not in ("", "0/s", "–"))
    cards = driver.find_elements(By.CSS_SELECTOR, "#store-cards article")
    check([card.get_attribute("data-key") for card in cards] == ["local"], "not the one store")
    until("the store runs", lambda: "Running" in text("#store-cards .badge"))
    nodes = [node["name"] for node in api("GET", "/admin/v1/stores/local")["nodes"]]
    row = lambda node, column: text(f"#rows tr[data-key={node}] [data-name='{column}']")
    for node in nodes:
        until(f"{node} has figures", lambda: row(node, "Get/s") not in ("", "0", "–") and "µs" in row(node, "p50") + row(node, "p99") + "µs")
        check("Running" in row(node, "State") and "iB" in row(node, "Memory"), f"the row of {node}")
    led = sum(int(row(node, "Leads")) for node in nodes)
    check(led == 256, f"{led} ranges are led")
    for chart, lines in (("rates", 3), ("latencies", 3)):
        drawn = driver.find_elements(By.CSS_SELECTOR, f"#{chart} path.line")
        until(f"{chart} has lines", lambda: len(drawn) == lines and all(
            "L" in path for path in driver.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map((p) => p.getAttribute('d'))", f"#{chart} path.line")))
    check("voter" in text("#machine-cards") or "leader" in text("#machine-cards"), "the machine's part")
    check("If it fails" in text("#machine-cards"), "what happens when it fails")
    step("stores, nodes, rates and latencies under load")


def sorts_and_charts():
    tab_to("p99")
    press(Keys.ENTER)
    check(text("th[aria-sort=descending]").startswith("p99"), "the table is not sorted by p99")
    press(Keys.SPACE)
    check(text("th[aria-sort=ascending]").startswith("p99"), "the table does not turn round")
    driver.execute_script("document.querySelector('#rates .plot').focus()")
    press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    until("a moment is read out", lambda: "Get " in text("#rates [aria-live]"))
    check(by_id("rates").find_element(By.CLASS_NAME, "tip").is_displayed(), "no values are shown")
    if pictures:
        picture("values")
    press(Keys.ESCAPE)
    Select(by_id("of")).select_by_value("node2")
    step("sorting and reading charts with keys")


def themes():
    prefer("light")
    light = background()
    prefer("dark")
    dark = background()
    check(light != dark, "the page does not follow the system's theme")
    by_id("theme").click()
    check(background() == light, "the button does not make it light")
    by_id("theme").click()
    check(background() == dark and "dark" in text("#theme"), "the button does not make it dark")
    by_id("theme").click()
    prefer("light")
    check(background() == light, "it does not follow the system again")
    step("themes")


def no_markup():
    """What would make text into markup is refused by the browser itself."""
    refused = "try { document.createElement('p').innerHTML = '<b>x</b>'; return false; } catch { return true; }"
    check(driver.execute_script(refused), "the page may make markup of text")
    ran = ("const s = document.createElement('script'); s.append('window.ran = 1');"
           " try { document.head.append(s); } catch {} return window.ran === undefined")
    check(driver.execute_script(ran), "a script within the page runs")
    driver.get_log("browser")
    step("text cannot become markup")


def remembers():
    """Opened anew in the same tab, it goes on, and the charts begin in the past."""
    points = "const points = document.querySelector('#rates path.line')?.getAttribute('d').split('L').length ?? 0; "
    until("there is a past", lambda: driver.execute_script(points + "return points > 12"))
    driver.refresh()
    until("it goes on", lambda: text("#live") == "● Live")
    check(not by_id("login").is_displayed(), "it wants the token again")
    # Of what this page saw itself there is one point every two seconds, however slow the machine is.
    more = points + "return points > 4 + performance.now() / 2000"
    until("there are more points than it can have seen itself", lambda: driver.execute_script(more))
    step("charts that begin in the past")


def by_keyboard():
    """Stop and start, with no other means than keys."""
    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    tab_to("Stop local")
    press(Keys.ENTER)
    until("it asks", lambda: by_id("confirm").is_displayed())
    check(focused() == "confirm-name", "the focus is not where the name is typed")
    press("loca", Keys.ENTER)
    check(by_id("confirm").is_displayed() and not by_id("confirm-go").is_enabled(), "half a name is enough")
    picture("confirm")
    press(Keys.ESCAPE)
    until("it is put away", lambda: not by_id("confirm").is_displayed())
    check(focused() == "Stop local", "the focus is lost")
    check(status() == "Running", "it was stopped all the same")
    press(Keys.ENTER, "local", Keys.ENTER)
    until("it says so", lambda: "was stopped" in text("#notices"))
    check(status() == "Stopped", "the manager does not say that it is stopped")
    until("the card says so", lambda: "Stopped" in text("#store-cards .badge"))
    until("nothing is missing", lambda: "lost" not in text("#store-cards") and "▲" not in text("#rows"))
    picture("stopped")
    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    tab_to("Start local")
    press(Keys.ENTER)
    until("it asks", lambda: by_id("confirm").is_displayed())
    press(Keys.ENTER)
    until("it says so", lambda: "was started" in text("#notices"))
    until("the manager says so", lambda: status() == "Running")
    until("the card says so", lambda: "Running" in text("#store-cards .badge"))
    step("stop and start with keys alone")


def restarts():
    until("the copies are in sync", lambda: api("GET", "/admin/v1/stores/local")["copies"]["degraded_ranges"] == 0)
    before = [node["pid"] for node in api("GET", "/admin/v1/stores/local")["nodes"]]
    until("it can be", lambda: driver.find_element(By.CSS_SELECTOR, "[aria-label='Restart local']").is_enabled())
    driver.find_element(By.CSS_SELECTOR, "[aria-label='Restart local']").click()
    check("Nothing is lost" in text("#confirm-text"), "what a restart means")
    by_id("confirm-go").click()
    until("it says so", lambda: "was restarted" in text("#notices"))
    after = [node["pid"] for node in api("GET", "/admin/v1/stores/local")["nodes"]]
    check(not set(before) & set(after), "some node was not restarted")
    step("rolling restart")


def refusals():
    """A store that goes away while somebody is about to start it."""
    subprocess.run(["dkv", "store", "create", "Other", "--instance-prefix", "other", "--replicas", "0"], check=True, capture_output=True)
    until("it appears", lambda: driver.find_elements(By.CSS_SELECTOR, "[aria-label='Start Other']"))
    until("the picker has it", lambda: "Other" in text("#store"))
    Select(by_id("store")).select_by_value("Other")
    until("it is shown", lambda: text("#now-title") == "Other")
    driver.find_element(By.CSS_SELECTOR, "[aria-label='Start Other']").click()
    subprocess.run(["dkv", "store", "delete", "Other"], check=True, capture_output=True)
    by_id("confirm-go").click()
    until("it is refused", lambda: "refused" in text("#notices"))
    check("What to do next" in text("#notices") and "dkv store list" in text("#notices"), "no way out is shown")
    picture("refused")
    until("it is gone", lambda: text("#now-title") == "local")
    step("a refused command says what to do next")


def away():
    pid = api("GET", "/admin/v1/managers")["pid"]
    os.kill(pid, signal.SIGKILL)
    until("it is noticed", lambda: "Away since" in text("#live"))
    check("What you see is from" in text("#away-then") and "Try now" in text("#again") + "Try now", "what is shown is not told apart")
    check("stale" in by_id("figures").get_attribute("class"), "old figures look like new ones")
    check(text("#rows tr[data-key=node1] [data-name=Node]") == "node1", "the last figures are gone")
    picture("away")
    subprocess.run(["dkv", "up"], check=True, capture_output=True)
    until("it is back", lambda: text("#live") == "● Live" and not by_id("away").is_displayed())
    step("a manager that is away and comes back")


def narrow():
    wide(360, 780)
    until("it is drawn anew", lambda: driver.execute_script("return document.querySelector('#rates svg.drawing').clientWidth") < 360)
    # Its own content decides, not what the window cuts off.
    wider = driver.execute_script(
        "return [...document.querySelectorAll('main *, header *')].filter((e) => e.getBoundingClientRect().right > 361"
        " && !e.closest('thead')).map((e) => `${e.tagName}.${e.className.baseVal ?? e.className} ${e.textContent}`)")
    check(not wider and driver.execute_script("return document.documentElement.scrollWidth") <= 360, f"wider than 360 pixels: {wider}")
    for theme in ("light", "dark"):
        prefer(theme, "reduce")
        picture(f"narrow-{theme}")
    wide(1360)
    prefer("light")
    step("360 pixels")


def empties():
    subprocess.run(["dkv", "store", "stop", "local"], check=True, capture_output=True)
    subprocess.run(["dkv", "store", "delete", "local"], check=True, capture_output=True)
    until("it says how to begin", lambda: by_id("empty").is_displayed())
    check("dkv store create" in text("#empty") and not by_id("stores").is_displayed(), "no store, and something is shown")
    picture("empty")
    step("no store yet")


def log_out():
    by_id("leave").click()
    check(by_id("login").is_displayed() and not by_id("console").is_displayed(), "still there")
    check(driver.execute_script("return sessionStorage.length") == 0, "the token is kept")
    picture("login")
    step("log out")


def one():
    stop = threading.Event()
    threading.Thread(target=load, args=[stop], daemon=True).start()
    log_in()
    figures()
    secret_is_kept()
    sorts_and_charts()
    Select(by_id("of")).select_by_value("")
    themes()
    if pictures:
        # So that the charts have something to show.
        time.sleep(float(os.environ.get("DKV_PICTURE_S", "40")))
        for theme in ("dark", "light"):
            prefer(theme)
            picture(theme)
    no_markup()
    remembers()
    narrow()
    by_keyboard()
    restarts()
    refusals()
    away()
    stop.set()
    empties()
    log_out()
    # A wrong token, a store that was deleted, a manager that was killed.
    quiet(["401 (Unauthorized)", "404 (Not Found)", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE"])


def two():
    log_in()
    until("both machines are there", lambda: len(driver.find_elements(By.CSS_SELECTOR, "#machine-cards article")) == 2)
    until("both are reached", lambda: text("#machine-cards").count("Reachable") == 2)
    states = lambda: [cell.text for cell in driver.find_elements(By.CSS_SELECTOR, "#rows [data-name=State]")]
    until("nodes of both run", lambda: len(states()) == 2 and all("Running" in one for one in states()))
    until("both have figures", lambda: all("iB" in cell.text for cell in driver.find_elements(By.CSS_SELECTOR, "#rows [data-name=Memory]")))
    check("promoted by hand" in text("#machine-cards") or "cannot decide" in text("#machine-cards"), "what happens when the first fails")
    picture("two")
    step("a group of two, from elsewhere")
    driver.find_element(By.CSS_SELECTOR, "[aria-label='Stop Orders']").click()
    press("Orders", Keys.ENTER)
    until("all of it is stopped", lambda: all("Stopped" in one for one in states()))
    step("stopped on both machines")
    secret_is_kept()
    quiet(["401 (Unauthorized)"])


try:
    if pictures:
        os.makedirs(pictures, exist_ok=True)
    {"one": one, "two": two}[kind]()
finally:
    driver.quit()
print(f"console: {', '.join(steps)}")
