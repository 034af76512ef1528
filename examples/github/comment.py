"""Put a comment on a pull request, in place of the one that is there: needs Python alone.

    PULL_REQUEST=12 GITHUB_TOKEN=... GITHUB_REPOSITORY=owner/name python3 comment.py comment.md

The comment is found by its first line, a hidden marker. Where the token may not write (a pull
request from a fork), this says so and ends with 0: the summary of the step holds the same text.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

#: Who writes with a workflow's own token; another's comment is never changed.
AUTHOR = os.environ.get("COMMENT_AUTHOR", "github-actions[bot]")
MOST_PAGES, PER_PAGE, MOST_LETTERS = 30, 100, 65_536


def main() -> int:
    """Update the comment, or make it."""
    body = Path(sys.argv[1]).read_text(encoding="utf-8")[:MOST_LETTERS]
    marker = body.partition("\n")[0]
    if not marker.startswith("<!-- latdiag-gate:"):
        print(f"{sys.argv[1]} is no comment of latdiag", file=sys.stderr)
        return 2
    repository = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    try:
        number = found(f"{repository}/{os.environ['PULL_REQUEST']}/comments", marker)
        if number is None:
            call("POST", f"{repository}/{os.environ['PULL_REQUEST']}/comments", {"body": body})
        else:
            call("PATCH", f"{repository}/comments/{number}", {"body": body})
    except urllib.error.HTTPError as fault:
        if fault.code not in (401, 403, 404):
            raise
        print(f"No comment: this token may not write one ({fault.code}). See the summary.")
        return 0
    print("The comment was made." if number is None else "The comment was updated.")
    return 0


def found(path: str, marker: str) -> int | None:
    """The number of the comment that begins with ``marker``; None where there is none."""
    for page in range(1, MOST_PAGES + 1):
        comments = call("GET", f"{path}?per_page={PER_PAGE}&page={page}")
        for each in comments:
            if each["user"]["login"] == AUTHOR and each["body"].startswith(marker):
                return int(each["id"])
        if len(comments) < PER_PAGE:
            return None
    return None


def call(method: str, path: str, document: object = None) -> list:
    """The answer of GitHub's REST API."""
    request = urllib.request.Request(
        os.environ.get("GITHUB_API_URL", "https://api.github.com") + path,
        method=method,
        data=None if document is None else json.dumps(document).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
