"""Token datasets that others have filtered, joined or moved: still token datasets, or an error that says why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codec.foundation import UserError
from data import TokenDataset
from data.combine import combine_datasets
from data.corpora import Word
from data.sharded_directory import Shard
from data.token_files import find_files
from data.tokenization import TokenRow
from data.tokenization.directory import TokenDirectory
from recipes.cli.main import main
from tests.slm.token_rows import codec_info

CODEC = codec_info((2048, 64))
LIMIT = 3.0  # seconds


def some_rows(count: int, seed: int = 0, name: str = "row") -> list[TokenRow]:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        frames = int(random.integers(24, 150))
        codes = random.integers(0, (2048, 64), (frames, 2)).astype(np.uint16).reshape(-1)
        words = [Word("one", 0.25, 0.5), Word("two", None, None)] if number % 2 else None
        text = f"Text {number}, ü." if number % 3 else None
        rows.append(TokenRow(f"{name} {number}", codes, frames / 24, text, "ab"[number % 2], "en", words))
    return rows


def write_tokens(path: Path, splits: dict[str, list[TokenRow]], shards: int = 2, codec=CODEC) -> Path:
    options = {"precision": "float32", "source": "a book", "licence": "cc0-1.0"}
    directory = TokenDirectory(
        path, {"codec": codec.to_dict(), "corpus": {"name": path.name}, "options": options}
    )
    directory.prepare()
    directory.begin()
    every = []
    for split, rows in splits.items():
        bounds = np.linspace(0, len(rows), shards + 1).astype(int)
        for number in range(shards):
            shard = Shard(split, number, shards, bounds[number], bounds[number + 1])
            directory.write_rows(shard, rows[shard.start : shard.stop], [])
            every.append(shard)
    assert directory.finish(every)
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(
        tmp_path / "tokens", {"train": some_rows(20), "validation": some_rows(4, 1, "held out")}
    )


def same(found: TokenDataset, expected: list[TokenRow]) -> bool:
    def plain(row: TokenRow) -> list:
        words = [tuple(word) for word in row.words] if row.words is not None else None
        return [
            row.id,
            row.codes.tolist(),
            np.float32(row.seconds),
            row.text,
            row.speaker,
            row.language,
            words,
        ]

    return [plain(found.row(number)) for number in range(len(found))] == [plain(row) for row in expected]


def check_columns(found: TokenDataset) -> None:
    """Columns of consecutive rows hold what the rows hold."""
    for first, stop in ((0, len(found)), (1, 4), (2, 2)):
        rows = range(first, stop)
        assert found.column("text", slice(first, stop)) == [found.text(row) for row in rows]
        counts, word, start, end = found.word_columns(slice(first, stop))
        words = [found.words(row) or [] for row in rows]
        assert counts.tolist() == list(map(len, words))
        flat = [each for of_row in words for each in of_row]
        assert word == [each.word for each in flat]
        for column, name in ((start, "start"), (end, "end")):
            wanted = np.array([getattr(each, name) for each in flat], dtype=float)
            np.testing.assert_array_equal(column, wanted)


def by_datasets(tokens: Path, made: Path) -> None:
    rows = datasets.load_dataset(str(tokens))["train"].filter(lambda row: row["seconds"] < LIMIT)
    rows.to_parquet(made / "train-00000-of-00001.parquet")


def by_datasets_in_pieces(tokens: Path, made: Path) -> None:
    rows = datasets.load_dataset(str(tokens))["train"]
    short = [number for number, seconds in enumerate(rows["seconds"]) if seconds < LIMIT]
    pieces = [rows.select([number]) for number in short]
    (made / "data").mkdir()  # as `push_to_hub` writes it
    joined = datasets.concatenate_datasets(pieces)
    for number in range(2):
        joined.shard(2, number).to_parquet(made / f"data/train-{number:05d}-of-00002.parquet")


def by_datasets_saved(tokens: Path, made: Path) -> None:
    rows = datasets.load_dataset(str(tokens))["train"].filter(lambda row: row["seconds"] < LIMIT)
    parts = [rows.select(range(5)), rows.select(range(5, len(rows)))]
    datasets.DatasetDict({"train": datasets.concatenate_datasets(parts)}).save_to_disk(
        made, num_shards={"train": 2}
    )


def by_pandas(tokens: Path, made: Path) -> None:
    rows = pd.read_parquet(tokens / "data")
    rows = pd.concat([rows[~rows.id.str.startswith("held out")], rows.iloc[:0]])
    rows[rows.seconds < LIMIT].to_parquet(made / "short.parquet")


def by_pyarrow(tokens: Path, made: Path) -> None:
    for number in range(2):  # the names and the number of files that there were
        name = f"train-{number:05d}-of-00002.parquet"
        pq.write_table(pq.read_table(tokens / name, filters=[("seconds", "<", LIMIT)]), made / name)
    shutil.copy(tokens / "validation-00000-of-00002.parquet", made)
    shutil.copy(tokens / "validation-00001-of-00002.parquet", made)
    shutil.copy(tokens / "metadata.json", made)


def by_duckdb(tokens: Path, made: Path) -> None:
    shutil.copy(tokens / "metadata.json", made)
    duckdb.sql(
        f"copy (select *, 1 as mine from '{tokens}/train-*.parquet' where seconds < {LIMIT} "
        f"order by split_part(id, ' ', 2)::int) to '{made}/train.parquet'"
    )


@pytest.mark.parametrize(
    "tool", [by_datasets, by_datasets_in_pieces, by_datasets_saved, by_pandas, by_pyarrow, by_duckdb]
)
def test_what_other_tools_make_of_it_is_a_token_dataset(
    tool: Callable[[Path, Path], None], tokens: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    tool(tokens, made)
    found = TokenDataset.open(made, codec=CODEC)
    check_columns(found)
    expected = [row for row in some_rows(20) if row.seconds < LIMIT]
    assert 5 < len(expected) < 18 and same(found, expected) and found.info == CODEC
    assert found.content_hash not in ("", TokenDataset.open(tokens).content_hash)
    assert same(TokenDataset.open(tokens), some_rows(20))  # as it was
    numbers, names = found.speaker_numbers()
    assert [names[number] for number in numbers] == [row.speaker for row in expected]


def test_the_codec_is_named_in_a_single_file_too(tokens: Path, tmp_path: Path) -> None:
    short = pd.read_parquet(tokens / "data").query(f"seconds < {LIMIT}")
    short.to_parquet(tmp_path / "short.parquet")
    expected = [row for row in some_rows(20) + some_rows(4, 1, "held out") if row.seconds < LIMIT]
    assert same(TokenDataset.open(tmp_path / "short.parquet", codec=CODEC), expected)


def test_directories_of_data_alone(tokens: Path) -> None:
    """pandas skips no file and polars none but empty ones: there is nothing else in the folder."""
    files = sorted(file.name for file in (tokens / "data").iterdir())
    assert files == [
        f"{split}-{n:05d}-of-00002.parquet" for split in ("train", "validation") for n in range(2)
    ]
    assert len(pd.read_parquet(tokens / "data")) == 24
    loaded = datasets.load_dataset(str(tokens))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 20, "validation": 4}


def test_the_cache_of_datasets_tells_directories_of_one_name_apart(tmp_path: Path) -> None:
    """It goes by the name and the README of a directory."""
    found = [
        write_tokens(tmp_path / place / "mine", {"train": some_rows(n)}) for place, n in (("a", 4), ("b", 6))
    ]
    assert [len(datasets.load_dataset(str(path))["train"]) for path in found] == [4, 6]


def test_a_dataset_of_before_is_read(tokens: Path) -> None:
    """Without links, sizes in the metadata, and names for other tools."""
    shutil.rmtree(tokens / "data")
    metadata = json.loads((tokens / "metadata.json").read_text())
    for counts in metadata["splits"].values():
        del counts["bytes"]
    (tokens / "metadata.json").write_text(json.dumps(metadata))
    for file in tokens.glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.replace_schema_metadata({b"codec": table.schema.metadata[b"codec"]}), file)
    found = TokenDataset.open(tokens)
    assert same(found, some_rows(20)) and found.content_hash == metadata["content_hash"]


def rewrite(tokens: Path, change: Callable[[dict], None]) -> None:
    """Change the first row of the first shard."""
    file = tokens / "train-00000-of-00002.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda row: row["codes"].__setitem__(1, 64), "quantizer 1, go from 0 to 63"),
        (lambda row: row["codes"].__setitem__(0, 60_000), "has the code 60000; .* quantizer 0"),
        (lambda row: row["codes"].pop(), "without whole frames of 2 codes"),
        (lambda row: row.update(codes=None), "without whole frames of 2 codes"),
    ],
)
def test_what_are_no_codes(tokens: Path, change: Callable[[dict], None], complaint: str) -> None:
    rewrite(tokens, change)
    with pytest.raises(UserError, match=complaint):
        TokenDataset.open(tokens)


def test_a_text_that_was_mended_is_another_dataset(tokens: Path) -> None:
    former = TokenDataset.open(tokens).content_hash
    rewrite(tokens, lambda row: row.update(text="Something else, and longer."))
    found = TokenDataset.open(tokens)
    assert found.text(0) == "Something else, and longer." and found.content_hash != former


def test_what_is_missing(tokens: Path, tmp_path: Path) -> None:
    duckdb.sql(f"copy (from '{tokens}/train-*.parquet') to '{tmp_path}/nameless.parquet'")
    with pytest.raises(UserError, match=r"names no codec.*metadata\.json"):
        TokenDataset.open(tmp_path / "nameless.parquet")
    other = write_tokens(tmp_path / "other", {"train": some_rows(2)}, 1, codec_info((2048, 64), "f" * 16))
    shutil.copy(other / "train-00000-of-00001.parquet", tokens / "more.parquet")
    with pytest.raises(UserError, match="ffffffffffffffff"):
        TokenDataset.open(tokens)
    (tokens / "more.parquet").unlink()
    with pytest.raises(ValueError, match="features can't be aligned"):  # two codecs do not become one
        datasets.concatenate_datasets(
            [datasets.load_dataset(str(place))["train"] for place in (tokens, other)]
        )
    (tokens / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"1 shards are missing \(train-00001"):
        TokenDataset.open(tokens)
    (tokens / "metadata.json").unlink()
    with pytest.raises(UserError, match=r"1 shards are missing \(train-00001"):
        TokenDataset.open(tokens)
    table = pq.read_table(tokens / "train-00000-of-00002.parquet").drop_columns("id")
    pq.write_table(table, tmp_path / "without.parquet")
    with pytest.raises(UserError, match="lacks the column id"):
        TokenDataset.open(tmp_path / "without.parquet")


@pytest.mark.parametrize("codec", ["{", "[]", '{"name": 3}'])
def test_a_damaged_file_is_named(tokens: Path, tmp_path: Path, codec: str) -> None:
    table = pq.read_table(tokens / "train-00000-of-00002.parquet")
    path = tmp_path / "damaged.parquet"
    pq.write_table(table.replace_schema_metadata({"codec": codec}), path)
    with pytest.raises(UserError, match=r"damaged\.parquet"):
        TokenDataset.open(path)
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"damaged\.parquet"):
        TokenDataset.open(path)


def test_combined_and_filtered(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = write_tokens(tmp_path / "more", {"train": some_rows(6, 2), "test": some_rows(9, 4, "test")})
    output = tmp_path / "both"
    command = ["combine", str(tokens), str(more), "--output", str(output), "--shards", "2"]
    command += ["--where", f"seconds < {LIMIT} and speaker == 'b'"]
    assert main(command) == 0 and "rows (" in capsys.readouterr().out

    def kept(rows: list[TokenRow]) -> list[TokenRow]:
        return [row for row in rows if row.seconds < LIMIT and row.speaker == "b"]

    found = TokenDataset.open(output)
    first, second = kept(some_rows(20)), kept(some_rows(6, 2))
    assert [found.id(n) for n in range(len(found))] == [row.id for row in first] + [
        f"{row.id}#2" if row.id in {one.id for one in first} else row.id for row in second
    ]
    assert any("#2" in found.id(n) for n in range(len(found)))
    codes = [row.codes.tolist() for row in first + second]
    assert [found.codes(n).tolist() for n in range(len(found))] == codes
    assert same(TokenDataset.open(output, "validation"), kept(some_rows(4, 1, "held out")))
    assert list(find_files(output).splits) == ["train", "validation", "test"]
    metadata = found.metadata
    assert metadata["splits"]["train"]["shards"] == 2 and metadata["licence"] == "cc0-1.0"
    times = {file: file.stat().st_mtime_ns for file in output.glob("*.parquet")}
    assert main(command) == 0 and times == {
        file: file.stat().st_mtime_ns for file in output.glob("*.parquet")
    }
    assert main([*command[:-1], "seconds < 2"]) == 2 and "options.where" in capsys.readouterr().err
    for where, complaint in {
        "loudness > 3": "'loudness' is not defined",
        "seconds <": "as in",
        "seconds > 99": "no row is left",
    }.items():
        assert main(["combine", str(tokens), "--output", str(tmp_path / "n"), "--where", where]) == 2
        assert complaint in capsys.readouterr().err and not (tmp_path / "n").exists()


def test_combining_goes_on_after_a_kill(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "other/whole"
    assert combine_datasets([str(tokens)], str(whole), shards=4).whole
    written: list[Shard] = []
    write_rows = TokenDirectory.write_rows

    def two(self: TokenDirectory, shard: Shard, *others: object, **named: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write_rows(self, shard, *others, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TokenDirectory, "write_rows", two)
    with pytest.raises(KeyboardInterrupt):
        combine_datasets([str(tokens)], str(killed), shards=4)
    assert len(list(killed.glob("*.parquet"))) == 2
    with pytest.raises(UserError, match="not whole yet"):
        TokenDataset.open(killed)
    monkeypatch.undo()
    assert combine_datasets([str(tokens)], str(killed), shards=4).whole
    for file in (path for path in whole.iterdir() if path.is_file()):
        assert (killed / file.name).read_bytes() == file.read_bytes()
