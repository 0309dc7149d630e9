"""How many tokens the longest prompt of a task has: what the cache and the context must hold.

Leaves out what becomes of that number (opening.py).
"""

import heapq

from groschen.records import Problem, Split
from groschen.tasks.task import Task, with_instruction
from groschen.text.bundle import Text
from groschen.text.messages import texts

_TRIED = 64  # problems whose whole prompt is made; a template adds about as much to each


def longest_prompt(task: Task, text: Text) -> int:
    """Tokens of the longest prompt of all splits, in the task's longest wording.

    Not of the longest text: 300 emoji have more tokens than 1,000 English letters. Every problem whose bytes
    could make it one of the longest is encoded (0.1 ms each); those with the most tokens are rendered whole.
    """

    def num_bytes(problem: Problem) -> int:
        return sum(len(piece.encode("utf-8", "replace")) for piece in texts(problem.messages))

    def num_tokens(piece: str) -> int:
        return len(text.tokenizer.encode(piece))

    problems = [problem for split in Split for problem in task.problems[split]]
    sizes = [num_bytes(problem) for problem in problems]
    longest: list[tuple[int, int]] = []  # the least first
    for index in sorted(range(len(problems)), key=sizes.__getitem__, reverse=True):
        if len(longest) == _TRIED and sizes[index] <= longest[0][0]:
            break  # a token is a byte at least, so none of the others is longer
        count = sum(num_tokens(piece) for piece in texts(problems[index].messages))
        keep = heapq.heappush if len(longest) < _TRIED else heapq.heappushpop
        keep(longest, (count, index))
    words = max(task.instructions, key=num_tokens, default="")
    template = text.chat_template()
    asked = [problems[index] for _, index in longest]
    asked = [with_instruction(problem, words) for problem in asked] if words else asked
    return max(len(template.encode(text.tokenizer, problem.messages)) for problem in asked)
