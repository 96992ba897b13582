"""The command that compares tokenizers by what a language model makes of them: study."""

from recipes.study.config import StudyConfig


def study_command(config: StudyConfig, dry_run: bool = False) -> int:
    """Several tokenizers, one corpus, one language model, one budget, one report.

    Each tokenizer is measured as a codec; the corpus becomes its tokens; a language model learns them, and is measured
    in bits a second of held-out speech and by what it says. It is said beforehand what that takes. Leaves report.html,
    report.md, results.json, times.json and cells/ in the output. Killed and started again it does nothing twice, nor
    when a tokenizer is added to the list.

    Args:
        config: the study; see recipes/study/ for an example.
        dry_run: only say what there is to do and how long it will take.
    """
    from codec.foundation import duration
    from recipes.reporting.pictures import markdown_table
    from recipes.study.cells import Stopped
    from recipes.study.run import Study

    study = Study(config)
    planned = study.forecast()
    if planned.stages:
        rows = [[cost.tokenizer, cost.stage, cost.amount, duration(cost.seconds)] for cost in planned.stages]
        print(markdown_table(["tokenizer", "stage", "to do", "about"], rows, words=2))
        print(
            f"\nabout {duration(planned.seconds)} in {planned.processes} processes, as fast as this machine is now; "
            f"{planned.finished} stages are done already",
            flush=True,
        )
    else:
        print(f"all {planned.finished} stages are done already")
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
