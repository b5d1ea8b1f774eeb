"""`lyrics push`: a model or an adapter to the Hub."""

from __future__ import annotations

import argparse
from typing import Any

from .common import add_command
from .export import add_export_arguments, export_options, list_files

EXAMPLES = """examples:
  lyrics push merged OWNER/NAME --dry-run
  lyrics push merged OWNER/NAME --private --remote-code
  lyrics push runs/stage2 OWNER/NAME --base-model OWNER/BASE --revision v2

The token is that of `hf auth login`, or of HF_TOKEN.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = (
        "Export a model to a temporary place, and upload it in one commit. The repository is created if it is missing. "
        "What `lyrics export` leaves behind is not uploaded, and a card that a person wrote in the repository stays."
    )
    parser = add_command(commands, "push", "upload a model to the Hub", description, EXAMPLES)
    parser.add_argument("source", metavar="DIR", help="directory of a model, a first stage or an adapter")
    parser.add_argument("repo", metavar="REPO", help="the repository's id, OWNER/NAME")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, created if it is missing (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--dry-run", action="store_true", help="list files, sizes and the card, and send nothing")
    add_export_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Upload, or show what would be uploaded."""
    from lyrics.conversion.push import export_aside, push_model, require_repo_id

    options = export_options(arguments)
    if arguments.dry_run:
        require_repo_id(arguments.repo)
        with export_aside(arguments.source, arguments.repo, **options) as folder:
            print(list_files(folder))
            card = folder / "README.md"
            print(f"\n{card.read_text(encoding='utf-8')}" if card.is_file() else "\nThere is no card.")
        print(f"Nothing was sent to {arguments.repo}.")
        return 0
    where = {name: getattr(arguments, name) for name in ("private", "revision", "create_pr")}
    commit = push_model(arguments.source, arguments.repo, **where, **options)
    print(f"Uploaded {arguments.source}: {commit.pr_url or commit.commit_url}")
    return 0
