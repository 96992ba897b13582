"""mkdocs hook: the site mirrors the repository: README.md, docs/, READMEs of recipes and model cards.

Sounds in links become players.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = (
    "README.md",
    "LICENSE",
    "CITATION.cff",
    "Dockerfile",
    "docs/**/*",
    "recipes/*/README.md",
    "recipes/hh_codec/ablations/README.md",
    "recipes/apps/demo/pictures/*",
    "*/checkpoints/*/README.md",
)


def on_files(files, config):
    """Replace the files of docs/ by all that is shown, under their paths in the repository."""
    theirs = [file for file in files if file.src_dir != config.docs_dir]  # of the theme
    ours = {
        path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file() and path.suffix != ".py"
    }
    names = sorted(path.relative_to(ROOT).as_posix() for path in ours)
    return Files(
        [File(name, str(ROOT), config.site_dir, config.use_directory_urls) for name in names] + theirs
    )


def on_page_content(html, **_):
    """Players in place of links to sounds."""
    return re.sub(
        r'<a href="([^"]+\.opus)">(.*?)</a>',
        r'\2<br><audio controls style="width: 10rem" src="\1"></audio>',
        html,
    )
