"""The command that writes results into the README: results."""

from pathlib import Path

from codec.foundation import UserError


def results(
    codec: list[str] | None = None,
    slm: list[str] | None = None,
    bench: list[str] | None = None,
    readme: Path = Path("README.md"),
) -> int:
    """Write tables of results into a README, between its two comments.

    Each table stands under the command that measured it, the date and the device. What stood between the comments
    before is replaced, so give all files at once.

    Args:
        codec: what evaluate-codec left: its output directory, or the results.json in it. May be repeated.
        slm: what evaluate-slm left, likewise.
        bench: what bench left: its output directory, or the bench.json in it. May be repeated.
        readme: the file with the lines "<!-- results: begin -->" and "<!-- results: end -->".
    """
    from recipes.reporting.results import results_section
    from recipes.reporting.results_files import open_results
    from recipes.reporting.results_readme import update_readme

    if not (codec or slm or bench):
        raise UserError("nothing to write: give --codec, --slm or --bench, with what these commands left")
    section = results_section(
        [open_results(Path(path), "evaluate-codec") for path in codec or []],
        [open_results(Path(path), "evaluate-slm") for path in slm or []],
        [open_results(Path(path), "bench") for path in bench or []],
    )
    print(f"{readme}: {'results written' if update_readme(readme, section) else 'nothing has changed'}")
    return 0
