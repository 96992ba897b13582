"""The report's section of sounds."""

from collections.abc import Sequence

from recipes.reporting.page import Block, Paragraph, Section, Sound, Sounds
from recipes.study.result import Result

_MOST_READ = 6  # sentences to be heard in the page; the folders have them all


def listening_section(results: Sequence[Result]) -> Section:
    """Recordings, what the codecs make of them, and what the language models say."""
    names = [result.name for result in results]
    blocks: list[Block] = []
    examples = list(dict.fromkeys(name for r in results for name in r.reconstruction["examples"]))
    if examples:
        rows: list[tuple[str, list[Sound | str | None]]] = []
        for example in examples:
            owner = next(r for r in results if example in r.reconstruction["examples"])
            recording = owner.file(owner.outcome.reconstruction, f"examples/{example}.recording.wav")
            rows.append((example, [Sound(recording), *(_coded(result, example) for result in results)]))
        blocks += [Paragraph("Held-out recordings through the codecs."), Sounds(["recording", *names], rows)]
    read = {row["id"]: row for result in results for row in result.speech.get("rows", [])}
    if read:
        rows = []
        for key, row in list(read.items())[:_MOST_READ]:
            owner = next(r for r in results if any(other["id"] == key for other in r.speech.get("rows", [])))
            recording = owner.file(owner.outcome.speech, row["recording"])
            rows.append((row["text"], [Sound(recording), *(_spoken(result, key) for result in results)]))
        blocks += [
            Paragraph("Held-out sentences read by the language models, with what the recogniser heard."),
            Sounds(["recording", *names], rows),
        ]
    continued = list(dict.fromkeys(row["id"] for result in results for row in result.continuations))
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


def _continued(result: Result, key: str) -> Sound | str | None:
    row = next((row for row in result.continuations if row["id"] == key), None)
    if row is None:
        return None
    if row["audio"] is None:
        return f"refused: {row['reason']}"
    how = "; ".join([f"{row['prompt_seconds']:.1f} s given", *row["cuts"]])
    return Sound(result.file(result.outcome.speech, row["audio"]), how)


def _coded(result: Result, example: str) -> Sound | None:
    if example not in result.reconstruction["examples"]:
        return None
    return Sound(result.file(result.outcome.reconstruction, f"examples/{example}.codec.wav"))
