"""The page as a user has it: `codec-slm demo` with the bundled models, in headless Chromium."""

import base64
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import recipes.bundled
from tests.recipes.servers import running

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RECORDINGS = Path(recipes.bundled.__file__).parent / "sample_corpus" / "wavs"
RECORDING = RECORDINGS / "rms-0018.flac"
RATE = 24_000
SENTENCE = "The tide was low, and the boats lay on their sides."
DESKTOP, PHONE = (1440, 900), (375, 812)
# roles of what a user can act on
CONTROLS = {"button", "checkbox", "combobox", "link", "radio", "slider", "spinbutton", "tab", "textbox"}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command in a process of its own, for one user at a time; that it ends well is checked at the end.

    It comes before the browser, whose event loop a fork would have too.
    """
    folder = tmp_path_factory.mktemp("demo")
    with running("demo", "--limits.concurrent", "1", folder=folder) as server:
        yield server.address
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()
    assert {path.name for path in folder.iterdir()} <= {"log.txt", "torchinductor_root"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        # as root there is no sandbox
        arguments = ["--no-sandbox", "--disable-gpu", *microphone]
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class User:
    """Somebody with the page open; `complaints` are errors of the page, and requests to anywhere else."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int], scheme: str) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heed_message)
        self.page.on("request", lambda request: self._heed_address(request.url, address))
        self.page.goto(address)
        self.panel = self.page.locator("[role=tabpanel]:visible")
        self.status = self.panel.get_by_role("status")
        self.play = self.panel.locator(".play")
        self.place = self.panel.get_by_role("slider", name="Place")

    def _heed_message(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _heed_address(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.complaints.append(f"asked {url}")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        self.panel.get_by_role("button", name=name, exact=True).click()

    def encode(self, recording: Any) -> None:
        self.panel.locator("input[type=file]").set_input_files(recording)
        self.press("Encode and decode")
        self.done("Done:")

    def done(self, status: str) -> None:
        self.status.get_by_text(status).wait_for()
        self.panel.locator("[type=submit][aria-disabled=false]").wait_for()

    def download(self) -> np.ndarray:
        with self.page.expect_download() as download:
            self.press("Download")
        audio, rate = soundfile.read(download.value.path())
        assert rate == RATE
        return audio

    def answer(self, action: str, **fields: Any) -> list[dict[str, Any]]:
        """The events that the server sends for a form."""
        answer = self.page.request.post(self.page.url + action, multipart=fields)
        return [json.loads(line) for line in answer.text().splitlines()]

    def seconds(self) -> float:
        """Where the player stands."""
        return float(self.place.get_attribute("aria-valuenow"))

    def pixels(self) -> np.ndarray:
        """The picture, (height, width, 4)."""
        from PIL import Image

        url = self.panel.locator("canvas").evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))

    def height_of(self, mark: str) -> float:
        """Where in the picture a mark of its axis is."""
        box = self.panel.locator(".axis").get_by_text(mark, exact=True).bounding_box()
        return box["y"] + box["height"] / 2 - self.place.bounding_box()["y"]

    def fits(self) -> None:
        """Nothing has to be scrolled sideways but the picture; what can be touched is large and has a name."""
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") == width
        assert self.page.evaluate(TOO_SMALL) == []
        assert self.page.evaluate(TOO_PALE) == []
        tree = self.page.context.new_cdp_session(self.page).send("Accessibility.getFullAXTree")
        nodes = [node for node in tree["nodes"] if not node["ignored"]]
        roles = [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")]
        assert sum(node["role"]["value"] in CONTROLS for node in nodes) > 5
        assert [role for role in roles if role in CONTROLS] == []
        assert self.complaints == []

    def close(self) -> None:
        self.page.context.close()


# what can be touched, or its label, of less than 44 pixels
TOO_SMALL = """() => [...document.querySelectorAll("button, input, select, textarea, summary, audio, [role=slider]")]
    .filter((part) => part.checkVisibility())
    .map((part) => part.type === "radio" ? part.closest("label") : part)
    .filter((part) => part.offsetWidth < 44 || part.offsetHeight < 44)
    .map((part) => part.outerHTML)"""

# text with a contrast below 4.5 (WCAG 2.2: 1.4.3)
TOO_PALE = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [red, green, blue] = numbers(color).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ground = (part) => {
        const color = getComputedStyle(part).backgroundColor;
        return numbers(color)[3] === 0 ? ground(part.parentElement) : color;
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const wrong = [];
    let seen = 0;
    while (walker.nextNode()) {
        const text = walker.currentNode, part = text.parentElement;
        if (!text.data.trim() || !part.checkVisibility()) continue;
        const both = [light(getComputedStyle(part).color), light(ground(part))].sort((one, other) => other - one);
        if ((both[0] + 0.05) / (both[1] + 0.05) < 4.5) wrong.push(text.data);
        seen++;
    }
    if (seen < 10) wrong.push("too little was seen");
    return wrong;
}"""

# the place and the word that is lit, frame by frame until the end
WATCH = """async () => {
    const find = (where) => document.querySelector("#speak " + where);
    const seen = [];
    while (find(".play").ariaLabel === "Pause") {
        const words = find(".now")?.innerText;
        if (words) seen.push([Number(find("[role=slider]").ariaValueNow), words]);
        await new Promise(requestAnimationFrame);
    }
    return seen;
}"""

# amid the recording, back from the codec to it: the place before and after, and what the button then does
SWITCH = """async () => {
    const find = (where) => document.querySelector("#codec " + where);
    const place = () => Number(find("[role=slider]").ariaValueNow);
    while (place() < 0.9) await new Promise(requestAnimationFrame);
    const before = place();
    find(".switch input").click();
    return [before, place(), find(".play").ariaLabel];
}"""


@pytest.fixture
def users(address: str, browser: Any) -> Iterator[Any]:
    """Opens the page for one user more."""
    there: list[User] = []

    def another(size: tuple[int, int] = DESKTOP, scheme: str = "light") -> User:
        there.append(User(browser, address, size, scheme))
        return there[-1]

    yield another
    for user in there:
        user.close()


def said(events: list[dict[str, Any]], track: str) -> np.ndarray:
    pieces = [base64.b64decode(event["audio"]) for event in events if event.get("track") == track]
    return np.frombuffer(b"".join(pieces), "<i2") / 32_768


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_everything_fits_and_can_be_read(users: Any, size: tuple[int, int], scheme: str) -> None:
    user = users(size, scheme)
    user.fits()
    user.press("Have you seen my blue umbrella?")
    user.done("s of speech in")
    assert user.panel.locator(".error").bounding_box()["height"] == 0
    user.panel.get_by_text("Sampling").click()
    user.fits()
    user.tab("Codec")
    user.encode(RECORDING)
    user.fits()
    spectrum = user.pixels()[round(user.height_of("8000 Hz")) : round(user.height_of("0 Hz"))]
    ink = spectrum[spectrum[..., 3] > 128][:, :3].mean()
    assert ink < 80 if scheme == "light" else ink > 170
    user.tab("Continue")
    user.fits()


def test_a_sentence_is_typed_heard_and_gone_through_word_by_word(users: Any) -> None:
    user = users()
    text = user.panel.get_by_label("Text")
    text.fill(SENTENCE)
    # by keyboard, in the order in which it stands there
    text.focus()
    passed = []
    for _ in range(5):
        user.page.keyboard.press("Tab")
        passed.append(
            user.page.evaluate("(e => e.ariaLabel || e.value || e.innerText.trim())(document.activeElement)")
        )
    assert passed[:2] == ["flite-slt", "Hear flite-slt"] and passed[3:] == ["Sampling", "Speak"]
    user.status.evaluate(
        "status => new MutationObserver(() => (window.told ??= []).push(status.innerText))"
        ".observe(status, {childList: true})"
    )
    text.focus()
    user.page.keyboard.press("Control+Enter")
    user.panel.get_by_text("of 11 words").wait_for()  # is played before it is all made
    assert user.play.get_attribute("aria-label") == "Pause"
    user.done("s of speech in")
    told = user.page.evaluate("window.told")  # not every word of the way is read out
    assert told[0] == "Working …" and len(told) == 2 and "3." in told[1]
    fields = {"text": SENTENCE, "voice": "flite-slt", "temperature": "0.7", "top_p": "1", "seed": "0"}
    fields |= {name: user.panel.locator(f"[name={name}]").input_value() for name in ("temperature", "top_p")}
    events = user.answer("speak", **fields)
    audio = user.download()
    assert 1.5 <= len(audio) / RATE <= 8 and 0.01 < np.sqrt(np.mean(audio**2)) < 0.5
    np.testing.assert_allclose(audio, said(events, "Speech"), atol=1e-3)
    words = [word for event in events for word in event.get("words", [])]
    listed = user.panel.get_by_role("list", name="When each of the words is spoken").get_by_role("button")
    assert " ".join(listed.all_inner_texts()) == SENTENCE == " ".join(word for word, _, _ in words)
    _, start, end = words[3]
    clicked = "word => (word.click(), [word.closest('.player').querySelector('.line').style.translate, word.className])"
    line, light = listed.nth(3).evaluate(clicked)
    assert start * 200 - 2 <= float(line.removesuffix("px")) <= end * 200 and light == "now"
    user.play.click()
    user.place.focus()
    user.page.keyboard.press("Home")
    assert user.seconds() == 0
    user.page.keyboard.press("Space")
    seen = user.page.evaluate(WATCH)  # they light up while it plays
    assert len({text for _, text in seen}) > 4
    for place, text in seen:  # a place is told to 0.01 s
        assert any(word == text and begin - 6e-3 <= place <= over + 6e-3 for word, begin, over in words)
    left = listed.nth(3).bounding_box()["x"] - user.place.bounding_box()["x"]
    assert left == pytest.approx(start * 200, abs=2)  # above its tokens


def test_tokens_and_spectrogram_show_what_is_heard(users: Any) -> None:
    user = users()
    user.tab("Codec")
    times = np.arange(RATE) / RATE
    tones = [0.3 * np.sin(2 * np.pi * hertz * times) for hertz in (1_000, 5_000)]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(tones), RATE, format="WAV")
    user.encode({"name": "tones.wav", "mimeType": "audio/wav", "buffer": file.getvalue()})
    pixels = user.pixels()
    for second, hertz in ((0.5, 1_000), (1.5, 5_000)):
        column = pixels[:, round(200 * second), 3].astype(float)
        top, bottom = user.height_of("8000 Hz"), user.height_of("0 Hz")
        column[: round(top)] = column[round(bottom) :] = 0  # chips and ticks
        loudest = np.average(np.arange(len(column)), weights=column == column.max())
        assert (bottom - loudest) / (bottom - top) * 8_000 == pytest.approx(hertz, abs=120)
    events = user.answer(
        "codec", recording={"name": "tones.wav", "mimeType": "audio/wav", "buffer": file.getvalue()}
    )
    (row,) = events[0]["tokens"]
    expected = user.page.evaluate(
        "colors => colors.map(color => { const pen = new OffscreenCanvas(1, 1).getContext('2d');"
        "pen.fillStyle = `oklab(0.72 ${color})`; pen.fillRect(0, 0, 1, 1);"
        "return [...pen.getImageData(0, 0, 1, 1).data]; })",
        [color for _, color in row],
    )
    drawn = [pixels[10, round(200 * (frame + 0.5) / 24)] for frame in range(len(row))]
    np.testing.assert_allclose(np.array(drawn), np.array(expected), atol=2)
    box = user.place.bounding_box()
    user.page.mouse.move(box["x"] + 200 * 1.5, box["y"] + user.height_of("2000 Hz"))
    number = row[36][0]
    reading = user.panel.locator(".reading").inner_text()
    assert reading.startswith(f"1.50 s · token {number} · ")
    assert int(reading.split(" · ")[2].removesuffix(" Hz")) == pytest.approx(2_000, abs=60)


def test_recording_and_codec_are_compared_at_the_same_place(users: Any) -> None:
    user = users(PHONE)
    user.tab("Codec")
    user.encode(RECORDING)
    assert "71 (24 a second)" in user.panel.get_by_role("table", name="Numbers").inner_text()
    recording, _ = soundfile.read(RECORDING)
    np.testing.assert_allclose(user.download(), recording, atol=1e-3)
    user.place.click(position={"x": 160, "y": 60})
    assert user.seconds() == pytest.approx(0.8, abs=0.02)
    user.panel.get_by_text("Codec", exact=True).click()
    assert user.seconds() == pytest.approx(0.8, abs=0.02)
    rebuilt = user.download()
    assert len(rebuilt) == len(recording) and not np.allclose(rebuilt, recording, atol=1e-2)
    user.play.click()
    before, after, button = user.page.evaluate(SWITCH)
    assert before <= after < before + 0.1 and button == "Pause"
    user.panel.get_by_role("button", name="Play", exact=True).wait_for()  # at the end
    assert user.seconds() == pytest.approx(len(recording) / RATE, abs=0.01)
    assert user.complaints == []


def test_an_example_is_continued_in_the_voice_it_has(users: Any) -> None:
    user = users(PHONE)
    user.tab("Continue")
    user.press("Take an example")
    user.panel.locator("audio[src]").wait_for()
    user.panel.get_by_label("Continuations").fill("2")
    user.panel.get_by_label("Seconds to go on, at most").fill("2")
    user.press("Continue")
    user.done("2: new from")
    assert "most like flite-slt." in user.status.inner_text()
    first = user.download()
    user.panel.get_by_text("2", exact=True).click()
    second = user.download()
    user.panel.get_by_role("button", name="Continuation", exact=True).click()
    user.play.click()
    seam = float(user.status.inner_text().split("2: new from ")[1].split()[0])
    assert user.seconds() > seam - 0.05
    heard = round((seam - 0.5) * RATE)
    np.testing.assert_allclose(first[:heard], second[:heard], atol=1e-3)
    assert len(first) != len(second) or not np.allclose(first, second, atol=1e-2)
    assert user.complaints == []


def test_a_voice_is_recorded_by_microphone(users: Any) -> None:
    user = users()
    user.tab("Codec")
    user.press("Record")
    user.panel.get_by_role("button", name="Stop recording").wait_for()
    time.sleep(1)
    user.press("Stop recording")
    user.panel.locator("audio[src]").wait_for()
    user.press("Encode and decode")
    user.done("Done:")
    assert 0.5 < len(user.download()) / RATE < 5
    assert user.complaints == []


def test_what_cannot_be_done_is_told_where_the_user_looks(users: Any, tmp_path: Path) -> None:
    user = users(PHONE)
    text, counter = user.panel.get_by_label("Text"), user.panel.locator("#counter")
    text.fill("a" * 1_001)
    assert counter.inner_text() == "1,001 of 1,000 characters, 1 too many"
    text.press("Enter")  # nothing is cut, and nothing is sent
    assert len(text.input_value()) == 1_001 and user.status.inner_text() == ""
    text.fill("a\nb")
    assert counter.inner_text() == "3 of 1,000 characters"
    user.tab("Codec")
    alert = user.panel.get_by_role("alert")
    user.press("Encode and decode")
    alert.get_by_text("Upload or record something first").wait_for()
    file = user.panel.locator("input[type=file]")
    for content, told in [
        (b"no audio", "WAV, FLAC, OGG and MP3 files"),
        (bytes(51 << 20), "larger than 50 MB"),
    ]:
        (tmp_path / "notes.wav").write_bytes(content)
        file.set_input_files(tmp_path / "notes.wav")
        user.press("Encode and decode")
        alert.get_by_text(told).wait_for()
    user.encode(RECORDING)
    assert alert.inner_text() == ""


def test_users_wait_in_a_queue_and_see_their_place(users: Any) -> None:
    """One user is served at a time: one of those who speak closes the tab, another presses Stop."""
    long = " ".join([SENTENCE] * 15)
    gone, stops, last = users(), users(), users()
    gone.panel.get_by_label("Text").fill(long)
    gone.press("Speak")
    gone.panel.get_by_text("of 165 words").wait_for()
    stops.panel.get_by_label("Text").fill(long)
    stops.press("Speak")
    stops.status.get_by_text("You are number 1 in the queue.").wait_for()
    last.panel.get_by_label("Text").fill(SENTENCE)
    last.panel.get_by_label("Text").press("Enter")
    last.status.get_by_text("You are number 2 in the queue.").wait_for()
    waiting = last.panel.get_by_role("button", name="Waiting: number 2")
    assert waiting.get_attribute("aria-disabled") == "true"
    last.panel.get_by_label("Text").press("Enter")  # does nothing more
    gone.page.close()
    last.status.get_by_text("You are number 1 in the queue.").wait_for()
    stops.panel.get_by_text("of 165 words").wait_for()
    stops.press("Stop")
    stops.done("Stopped.")
    audio = stops.download()  # what there was
    assert 0.1 < len(audio) / RATE < 60
    last.done("s of speech in")
    assert 1.5 < len(last.download()) / RATE < 8
    assert stops.complaints == last.complaints == []


@pytest.mark.slow
def test_a_hundred_clicks_show_a_hundred_results(users: Any) -> None:
    user = users()
    user.tab("Codec")
    files = [RECORDINGS / f"slt-{number:04}.flac" for number in range(1, 11)]
    lengths = [soundfile.info(file).duration for file in files]
    for click in range(100):
        user.panel.locator("input[type=file]").set_input_files(files[click % 10])
        user.press("Encode and decode")
        user.panel.locator("[type=submit][aria-disabled=false]").wait_for()
        assert user.panel.locator(".player").is_visible()
        assert user.panel.get_by_role("table", name="Numbers").is_visible()
        assert user.status.inner_text().startswith("Done:")
        end = float(user.place.get_attribute("aria-valuemax"))
        assert end == pytest.approx(lengths[click % 10], abs=0.01)
    user.fits()
