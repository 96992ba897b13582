"""`completion`: commands and flags, for a shell to complete."""

from argparse import ArgumentParser

import shtab

from codec.foundation import UserError
from recipes.cli import main
from recipes.cli.arguments import build_parser


def completion_command(shell: str) -> None:
    """Print a script that completes commands, flags and their values in a shell.

    Args:
        shell: bash, zsh, fish or tcsh.
    """
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"there is completion for {', '.join(shtab.SUPPORTED_SHELLS)}, not for {shell}")
    root = ArgumentParser(prog="codec-slm")
    commands = root.add_subparsers()
    for name, command in main.COMMANDS.items():
        parser = commands.add_parser(name, help=command.summary)
        for action in build_parser(command.load(), name)._actions:
            if action.option_strings and action.dest != "help":
                choices = action.choices and list(action.choices)
                parser.add_argument(*action.option_strings, choices=choices)
        parser.add_argument("paths", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(root, shell))
