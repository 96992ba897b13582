"""The report's section of sounds."""

from collections.abc import Sequence

from recipes.study.page import Block, Paragraph, Section, Sound, Sounds
from recipes.study.result import Result

_MOST_READ = 6  # sentences to be heard in the page; the folders have them all


def listening_section(results: Sequence[Result]) -> Section:
    """Recordings, what the codecs make of them, and what the language models say."""
    names = [result.name for result in results]
    blocks: list[Block] = []
    examples = results[0].reconstruction["examples"]
    if examples:
        rows = []
        for example in examples:
            sounds: list[Sound | None] = [
                Sound(results[0].file(results[0].outcome.reconstruction, f"examples/{example}.recording.wav"))
            ]
            sounds += [
                Sound(r.file(r.outcome.reconstruction, f"examples/{example}.codec.wav")) for r in results
            ]
            rows.append((example, sounds))
        blocks += [Paragraph("Held-out recordings through the codecs."), Sounds(["recording", *names], rows)]
    read = {row["id"]: row for result in results for row in result.speech.get("rows", [])}
    if read:
        rows = []
        for key, row in list(read.items())[:_MOST_READ]:
            owner = next(r for r in results if any(other["id"] == key for other in r.speech.get("rows", [])))
            sounds = [Sound(owner.file(owner.outcome.speech, row["recording"]))]
            sounds += [_spoken(result, key) for result in results]
            rows.append((row["text"], sounds))
        blocks += [
            Paragraph("Held-out sentences read by the language models, with what the recogniser heard."),
            Sounds(["recording", *names], rows),
        ]
    continued = list(dict.fromkeys(c["id"] for r in results for c in r.speech.get("continuations", [])))
    if continued:
        rows = [(key, [_continued(result, key) for result in results]) for key in continued]
        blocks += [Paragraph("Beginnings of held-out recordings, gone on with."), Sounds(names, rows)]
    return Section("To listen to", blocks)


def _spoken(result: Result, key: str) -> Sound | None:
    row = next((row for row in result.speech.get("rows", []) if row["id"] == key), None)
    if row is None:
        return None
    return Sound(
        result.file(result.outcome.speech, row["audio"]), f"“{row['heard']}”" if row["heard"] else ""
    )


def _continued(result: Result, key: str) -> Sound | None:
    row = next((row for row in result.speech.get("continuations", []) if row["id"] == key), None)
    if row is None or row["audio"] is None:
        return None
    return Sound(result.file(result.outcome.speech, row["audio"]), f"{row['prompt_seconds']:.1f} s given")
