"""The page as a user has it: `codec-slm demo` with the bundled models, in headless Chromium."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import recipes.bundled
from tests.recipes.servers import running

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'codec-slm[demo]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RECORDING = Path(recipes.bundled.__file__).parent / "sample_corpus" / "wavs" / "rms-0018.flac"
RATE = 24_000
SENTENCE = "The tide was low, and the boats lay on their sides."
DESKTOP, PHONE = (1440, 900), (375, 812)
# roles of what a user can act on
CONTROLS = {"button", "checkbox", "combobox", "link", "slider", "spinbutton", "tab", "textbox"}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command in a process of its own; that it ends well and leaves nothing is checked at the end."""
    folder = tmp_path_factory.mktemp("demo")
    with running("demo", folder=folder) as server:
        yield server.address
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()
    assert not list(folder.glob("codec-slm*"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=CHROMIUM,
            # as root there is no sandbox; playing needs a user's click, which the driver's is only sometimes
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


class User:
    """Somebody with the page open; `complaints` are errors of the page, and requests to anywhere else."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int]) -> None:
        self.page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heed_message)
        self.page.on("response", self._heed_response)
        self.page.on("request", lambda request: self._heed_address(request.url, address))
        self.page.goto(address)
        self.tab("Codec")

    def _heed_message(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _heed_response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def _heed_address(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.complaints.append(f"asked {url}")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()
        self.panel = self.page.locator("[role=tabpanel]:visible")
        self.panel.wait_for()

    def upload(self, path: Path) -> None:
        with self.page.expect_response(lambda response: "/upload?" in response.url):
            self.panel.locator("input[type=file]").set_input_files(path)
        self.panel.get_by_role("button", name="Clear").wait_for()

    def press(self, name: str) -> None:
        self.panel.get_by_role("button", name=name, exact=True).click()

    def download(self, label: str) -> np.ndarray:
        """The audio that is shown under a label."""
        link = self.panel.locator(".block", has=self.page.get_by_text(label, exact=True)).get_by_role("link")
        answer = self.page.request.get(link.get_attribute("href"))
        assert answer.ok
        audio, rate = soundfile.read(io.BytesIO(answer.body()))
        assert rate == RATE
        return audio

    def alert(self) -> str:
        return self.panel.get_by_role("alert").inner_text()

    def fits(self) -> None:
        """Nothing has to be scrolled sideways, and nothing that can be clicked lies outside."""
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") == width
        for control in self.panel.locator("button:visible, input:visible, textarea:visible").all():
            box = control.bounding_box()
            assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= width)

    def unnamed(self) -> list[str]:
        """Roles of controls that Chromium finds no accessible name for."""
        tree = self.page.context.new_cdp_session(self.page).send("Accessibility.getFullAXTree")
        nodes = [node for node in tree["nodes"] if not node["ignored"]]
        roles = [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")]
        assert sum(node["role"]["value"] in CONTROLS for node in nodes) > 5
        return [role for role in roles if role in CONTROLS]

    def close(self) -> None:
        self.page.context.close()


@pytest.fixture
def users(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page for one user more."""
    there: list[User] = []

    def another(size: tuple[int, int] = DESKTOP) -> User:
        there.append(User(browser, address, size))
        return there[-1]

    yield another
    for user in there:
        user.close()


def is_speech(audio: np.ndarray, least: float, most: float) -> bool:
    """So many seconds, neither silent nor clipped throughout."""
    return least <= len(audio) / RATE <= most and 0.01 < np.sqrt(np.mean(audio**2)) < 0.5


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_sentence_is_typed_and_heard(users: Any, size: tuple[int, int]) -> None:
    user = users(size)
    user.tab("Speak")
    user.fits()
    text = user.panel.get_by_label("Text")
    text.fill(SENTENCE)
    # from here on by keyboard, in the order in which it stands there
    text.focus()
    passed = []
    for _ in range(4):
        user.page.keyboard.press("Tab")
        passed.append(
            user.page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText")
        )
    assert [name.split("\n")[0].strip() for name in passed] == ["Voice", "Sampling", "Speak", "Stop"]
    user.page.keyboard.press("Shift+Tab")
    user.page.keyboard.press("Enter")
    live = user.panel.locator("audio[autoplay]")
    live.wait_for()
    user.panel.get_by_text("Whole speech").wait_for()
    said = user.download("Whole speech")
    assert is_speech(said, 1.5, 8.0)
    streamed = user.page.request.get(user.page.url + live.get_attribute("src")).body()
    assert streamed[:4] == b"RIFF"
    np.testing.assert_allclose(np.frombuffer(streamed[44:], "<i2") / 32_768, said, atol=2e-4)
    assert "3." in user.panel.get_by_role("status").inner_text()  # seconds of speech
    words = user.panel.get_by_role("list", name="When each of the words is spoken")
    assert " ".join(line for line in words.inner_text().split("\n") if "–" not in line) == SENTENCE
    user.fits()
    assert user.unnamed() == [] and user.complaints == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_recording_is_uploaded_and_its_tokens_and_spectrograms_seen(
    users: Any, size: tuple[int, int]
) -> None:
    from PIL import Image

    user = users(size)
    user.fits()
    user.upload(RECORDING)
    user.press("Encode and decode")
    widths = []
    for description in ("Every token as a dot", "Log-mel spectrograms"):
        picture = user.panel.get_by_role("img", name=description)
        picture.wait_for()
        file = base64.b64decode(picture.evaluate("image => image.currentSrc").split(",")[1])
        assert np.asarray(Image.open(io.BytesIO(file))).std() > 5  # something is drawn
        widths.append(picture.evaluate("image => image.naturalWidth"))
        shown = picture.bounding_box()["width"]
        assert 0.9 * min(size[0], 700) - 60 < shown <= size[0]
    assert all((width < 600) == (size == PHONE) for width in widths)  # letters of legible size on both
    table = user.panel.get_by_role("table", name="Numbers").inner_text()
    assert "71 (24 a second)" in table and "264 bit/s" in table
    recording, rate = soundfile.read(RECORDING)
    rebuilt = user.download("After the codec")
    assert rate == RATE and len(rebuilt) == len(recording) and is_speech(rebuilt, 2.0, 4.0)
    user.fits()
    assert user.unnamed() == [] and user.complaints == []


def test_an_example_is_continued(users: Any) -> None:
    user = users(PHONE)
    user.tab("Continue")
    user.press("Take an example")
    user.panel.get_by_role("button", name="Clear").wait_for()
    user.panel.get_by_label("number input for Continuations").fill("2")
    user.panel.get_by_label("number input for Seconds to go on, at most").fill("2")
    user.press("Continue")
    user.panel.get_by_text("2 of 2:").wait_for()
    first, second = user.download("Continuation 1"), user.download("Continuation 2")
    start = 2 * RATE
    assert len(first) > start and len(second) > start
    np.testing.assert_allclose(
        first[:start], second[:start], atol=1e-3
    )  # the recording, as the codec hears it
    assert len(first) != len(second) or not np.allclose(first, second, atol=1e-2)
    assert user.panel.get_by_text("Continuation 3").count() == 0
    user.fits()
    assert user.unnamed() == [] and user.complaints == []


def test_bad_and_long_uploads_are_told_where_the_user_looks(users: Any, tmp_path: Path) -> None:
    user = users(PHONE)
    user.press("Encode and decode")
    assert user.alert() == "Upload or record something first"
    (tmp_path / "notes.wav").write_text("no audio at all")
    user.upload(tmp_path / "notes.wav")
    user.press("Encode and decode")
    user.panel.get_by_text("not audio").wait_for()
    assert "WAV, FLAC, OGG and MP3 files can be read" in user.alert()
    # Gradio's player says that it cannot play it, too
    assert all("Waveform load error" in complaint for complaint in user.complaints)
    user.complaints.clear()
    user.press("Clear")
    times = np.arange(600 * 8_000) / 8_000
    soundfile.write(tmp_path / "long.flac", 0.2 * np.sin(2 * np.pi * 150 * times), 8_000)
    user.upload(tmp_path / "long.flac")
    user.press("Encode and decode")
    user.panel.get_by_text("Of the recording, the first 60 s were taken.").wait_for()
    assert len(user.download("After the codec")) == 60 * RATE
    user.press("Clear")
    with open(tmp_path / "large.wav", "wb") as file:
        file.truncate(51 * 2**20)
    user.panel.locator("input[type=file]").set_input_files(tmp_path / "large.wav")
    user.page.get_by_text("exceed the maximum allowed size of 50").wait_for()
    user.fits()
    assert user.complaints == []


def test_users_do_not_disturb_one_another(users: Any) -> None:
    """Two at once, one of whom closes the tab amid a long text, one who presses Stop: the others lose nothing."""
    alone = users()
    alone.tab("Speak")
    alone.panel.get_by_label("Text").fill(SENTENCE)
    alone.press("Speak")
    alone.panel.get_by_text("Whole speech").wait_for()
    gone, other = users(), users()
    for user in (gone, other):
        user.tab("Speak")
        user.panel.get_by_label("Text").fill(" ".join([SENTENCE] * 15))
        user.press("Speak")
        user.panel.get_by_text("of 165 words").wait_for()
    gone.page.close()
    other.press("Stop")
    other.panel.get_by_text("Stopped.").wait_for()
    assert is_speech(other.download("Whole speech"), 0.2, 60.0)
    before = alone.download("Whole speech")
    # there are two places: both are free again, or these two would wait for minutes
    for user in (alone, other):
        user.panel.get_by_label("Text").fill(SENTENCE)
        user.press("Speak")
    for user in (alone, other):
        user.panel.get_by_text("11 of 11 words").or_(
            user.panel.get_by_text("s of speech in")
        ).first.wait_for()
        user.panel.get_by_text("Whole speech").wait_for()
        np.testing.assert_allclose(user.download("Whole speech"), before, atol=1e-3)
        assert user.complaints == []
