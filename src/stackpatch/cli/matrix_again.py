"""The same words again: a matrix that nothing has changed since is told before anything is parsed.

The words need no parsing, since what they asked is remembered with the answer; so neither typer nor
pydantic nor libgit2 is brought up, which take longer than all that is left to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.cli import matrix_inputs, matrix_text, output
from stackpatch.cli.matrix_answer import Answer
from stackpatch.series.finished import Answers, Finished
from stackpatch.storage import cache_root

if TYPE_CHECKING:
    from collections.abc import Sequence


def tell(words: Sequence[str]) -> bool:
    """Tell the last answer to these words, if it is one still. Whether it was told.

    Raises EnvironmentProblem where stdout takes nothing.
    """
    folder = cache_root() / "verdicts"
    known = Answers(folder).find(matrix_inputs.asked_here(words))
    if known is None:
        return False
    try:
        question = matrix_inputs.Question.from_json(known.question)
    except (KeyError, TypeError):
        return False
    if not known.matrices or matrix_inputs.state(question) != known.state:
        return False
    kept = Finished(folder)
    texts = [text for name, key in known.matrices if (text := kept.find(name, key)) is not None]
    if len(texts) < len(known.matrices):
        return False
    matrix_text.tell(question, Answer([output.Written(text) for text in texts]))
    return True
