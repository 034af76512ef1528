"""One run's page with its truth beside it."""

from __future__ import annotations

import shutil

from latdiag.report.console import compose

from .judge import answer_of, book_of, judge
from .truth import by_cause
from .work import Task, result, rows_of


def page(task: Task) -> str:
    """What the world is, where its time went by cause, what latdiag says, and the judgement."""
    shutil.rmtree(task.run, ignore_errors=True)
    rows, world = rows_of(task)
    says, course = world.described, world.course
    workload = [row for row in rows if row.stage == "S10"]
    found = result(task)
    lines = [f"== {task.name}", *says, ""]
    if workload:
        book = book_of(workload)
        one = judge(answer_of(found.to_json()), book)
        spent = by_cause([row.truth() for row in workload if row.ok])
        total = max(sum(spent.values()), 1)
        lines.append(f"truth of {book.n} requests, mean {total / max(book.n, 1) / 1e6:.1f} ms:")
        for cause, took in sorted(spent.items(), key=lambda item: -item[1]):
            could = "+".join(sorted(cause.could))
            lines.append(
                f"  {100 * took / total:5.1f} %  {cause.leaf:<24}{cause.piece:<34}could be {could}"
            )
        lines += [
            f"healthy by the rule: {book.healthy}",
            f"can be parted: {', '.join(sorted(book.partable)) or 'nothing'}",
            f"judged {one.mark} {one.why}",
            *(
                f"  {'+'.join(sorted(e.members)):<34}{100 * e.said:6.1f} stated"
                f"{100 * e.true:7.1f} true  {'covered' if e.covers else 'NOT covered'}"
                for e in one.errors
            ),
        ]
    lines += [f"happens: {each}" for each in course.happenings]
    said = ("".join(span.text for span in line) for line in compose(found, True).lines)
    return "\n".join([*lines, "", "== latdiag", *said])
