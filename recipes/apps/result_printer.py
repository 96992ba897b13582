"""What a command says of its results: lines for people, or a JSON object each for programs."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from recipes.inputs import STANDARD


class ResultPrinter:
    """Prints the result for each output; `as_json`: as an object a line."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def tell(self, name: str | os.PathLike[str], lines: Sequence[str], **facts: Any) -> None:
        """Say a result, to standard error where its audio (`name` is "-") goes to standard output."""
        stream = sys.stderr if str(name) == STANDARD else sys.stdout
        if self.as_json:
            print(json.dumps({"name": str(name), **facts}, ensure_ascii=False), file=stream, flush=True)
            return
        for line in lines:
            print(line if str(name) == STANDARD else f"{name}: {line}", file=stream, flush=True)
