"""A row of a token dataset as a person reads it."""

from data.corpora import Word
from data.token_dataset import TokenDataset

_CODES_SHOWN = 48


def describe_row(dataset: TokenDataset, index: int) -> str:
    """Several lines of text: what was said, by whom, when each word is spoken, and how the stream begins.

    Raises IndexError for a row that is not there.
    """
    info, stream = dataset.info, dataset.codes(index)
    frames = stream.reshape(-1, info.num_quantizers)  # (frames, num_quantizers)
    lines = [
        f"row {index} of {len(dataset):,} in {dataset.name}, {dataset.split}",
        f"id        {dataset.id(index)}",
        f"codec     {info.name} ({info.fingerprint}), {info.frame_rate:g} frames/s, "
        f"{' + '.join(map(str, info.codebook_sizes))} codes",
        f"length    {dataset.seconds(index):.2f} s, {len(frames)} frames",
    ]
    for title, value in (
        ("speaker", dataset.speaker(index)),
        ("language", dataset.language(index)),
        ("text", dataset.text(index)),
    ):
        lines.append(f"{title:<10}{value if value is not None else '-'}")
    shown = [" ".join(map(str, frame)) for frame in frames[:_CODES_SHOWN].tolist()]
    separator = " | " if info.num_quantizers > 1 else " "
    more = f" ... ({len(frames) - _CODES_SHOWN} more frames)" if len(frames) > _CODES_SHOWN else ""
    lines.append(f"codes     {separator.join(shown)}{more}")
    words = dataset.words(index)
    if words is None:
        return "\n".join([*lines, "words     -"])
    placed = sum(word.placed for word in words)
    lines.append(
        f"words     {len(words)}" + (f", {len(words) - placed} without times" if placed < len(words) else "")
    )
    return "\n".join([*lines, *(_word_line(word, info.frame_rate) for word in words)])


def _word_line(word: Word, frame_rate: float) -> str:
    if word.start is None or word.end is None:
        return f"        - unplaced -  {word.word}"
    first, last = (round(seconds * frame_rate) for seconds in (word.start, word.end))
    return f"  {word.start:7.2f} - {word.end:6.2f} s  {word.word:<16} frames {first} to {last}"
