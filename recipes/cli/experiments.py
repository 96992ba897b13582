"""Commands that run or report whole experiments: quickstart, study, bench, results."""

from dataclasses import replace
from pathlib import Path

from codec.foundation import UserError
from data.config import CorpusOptions
from recipes.benchmark.config import FULL, PARTS, QUICK, Part
from recipes.study.config import StudyConfig

_READING = CorpusOptions()


def quickstart_command(
    output: Path = Path("runs/quickstart"),
    text: str = "The next train to the city leaves in twenty minutes.",
    train_seconds: float = 120.0,
) -> None:
    """The whole pipeline on the bundled corpus, in minutes on two CPU cores and without network.

    Leaves report.html, report.md, audio, a spectrogram picture and training curves in the output. Interrupted, it goes
    on where it was when started again.

    Args:
        output: directory for everything.
        text: a sentence for the bundled language model to speak.
        train_seconds: how long the bundled language model learns a new voice.
    """
    from recipes.quickstart import quickstart

    quickstart(output, text, train_seconds)


def study_command(config: StudyConfig, dry_run: bool = False, reading: CorpusOptions = _READING) -> int:
    """Several tokenizers, one corpus, one language model, one budget, one report.

    Each tokenizer is measured as a codec; the corpus becomes its tokens; a language model learns them, and is measured
    in bits a second of held-out speech and by what it says. It says beforehand what there is to do. Leaves report.html,
    report.md, results.json, times.json and cells/ in the output. Killed and started again it does nothing twice, nor
    when a tokenizer is added to the list.

    Args:
        config: the study; see recipes/study/ for an example.
        dry_run: only say what there is to do.
        reading: what to take from the corpus.
    """
    from recipes.loading import resolve_device
    from recipes.study.cells import Stopped
    from recipes.study.run import Study

    study = Study(config, resolve_device("auto"), reading)
    print(study.plan(), flush=True)
    if dry_run:
        return 0
    try:
        page = study.run()
    except Stopped:
        print("stopped: run the same command again to go on")
        return 0
    print((study.output / "report.md").read_text(encoding="utf-8").split("\n## ")[1].split("\n", 1)[1])
    print(f"the report: {page}")
    return 0


def bench(
    output: Path = Path("bench"),
    parts: list[Part] | None = None,
    codecs: list[str] | None = None,
    quick: bool = False,
    seconds: float | None = None,
    rounds: int | None = None,
    threads: int = 2,
    codec: str = "hh-codec-tiny",
    model: str = "slm-tiny",
    device: str = "auto",
) -> int:
    """How fast this is here, beside what one would otherwise use and beside what it must reach.

    Contestants take turns, so that ratios hold on a busy machine too; multiples of real time do not.
    Leaves bench.json and bench.md in the output.

    Args:
        output: directory for the results.
        parts: of codecs, tokenize, memory (of tokenize, on a recording of 3 hours), generation (beside transformers'
            generate, as multiple of real time, as a stream), training (beside transformers.Trainer), hybrid
            (hybrid-codec beside itself with its teacher inside) and bigvgan (beside the package bigvgan); all when
            unset.
        codecs: the presets, bundled codecs and models of transformers to time; all when unset.
        quick: seconds instead of minutes: less audio, fewer rounds, 10 minutes for the 3 hours.
        seconds: of audio that a codec is timed on; 10 unless set, 1.5 with --quick.
        rounds: how often each contestant has its turn, and each text is spoken; 7 unless set, 3 with --quick, and 3
            where one takes long. Everything is reported by the median, ratios by the median of the rounds' own.
        threads: of torch on the CPU.
        codec: what tokenize is timed with, beside the preset hh-codec with random weights.
        model: what generation is timed with.
        device: auto takes a GPU where there is one.
    """
    from codec.foundation import write_json, write_text
    from recipes.benchmark.codecs import contestant_names
    from recipes.benchmark.report import as_json, budgets, tables
    from recipes.benchmark.run import measure
    from recipes.loading import resolve_device
    from recipes.reporting.provenance import provenance

    known = contestant_names()
    if unknown := [name for name in codecs or [] if name not in known]:
        raise UserError(f"no codec {', '.join(unknown)} to time; there are {', '.join(known)}")
    effort = QUICK if quick else FULL
    if seconds is not None:
        effort = replace(effort, seconds=seconds, vocoder_seconds=seconds)
    if rounds is not None:
        effort = replace(effort, rounds=rounds, long_rounds=min(rounds, effort.long_rounds))
    if effort.seconds <= 0 or effort.rounds < 1 or threads < 1:
        raise UserError("seconds must be above 0, rounds and threads at least 1")
    where = resolve_device(device)
    measured = measure(parts or PARTS, codecs or known, codec, model, effort, threads, where)
    rows = budgets(measured)
    facts = {
        **provenance(where, ["numpy", "accelerate", "bigvgan"]),
        "threads": threads,
        "rounds": effort.rounds,
        "quick": quick,
    }
    found = tables(measured, rows)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "bench.json", as_json(measured, rows, facts))
    heading = (
        f"`{facts['command']}`, {facts['date']}: {facts['device']}, {threads} threads, contestants in turn"
    )
    write_text(output / "bench.md", f"# bench\n\n{heading}\n\n{found}\n")
    print(f"{found}\n\ndetails: {output / 'bench.json'}")
    return 0


def results(
    codec: list[str] | None = None,
    slm: list[str] | None = None,
    bench: list[str] | None = None,
    readme: Path = Path("docs/results.md"),
) -> int:
    """Write tables of results into a page, between its two comments.

    Each table stands under the command that measured it, the date and the device. What stood between the comments
    before is replaced, so give all files at once.

    Args:
        codec: what evaluate-codec left: its output directory, or the results.json in it. May be repeated.
        slm: what evaluate-slm left, likewise.
        bench: what bench left: its output directory, or the bench.json in it. May be repeated.
        readme: the page with the lines "<!-- results: begin -->" and "<!-- results: end -->".
    """
    from recipes.results import open_results, results_section, update_readme

    if not (codec or slm or bench):
        raise UserError("nothing to write: give --codec, --slm or --bench, with what these commands left")
    section = results_section(
        [open_results(Path(path), "evaluate-codec") for path in codec or []],
        [open_results(Path(path), "evaluate-slm") for path in slm or []],
        [open_results(Path(path), "bench") for path in bench or []],
    )
    print(f"{readme}: {'results written' if update_readme(readme, section) else 'nothing has changed'}")
    return 0
