from groschen.records import Problem as Problem
from groschen.records import Split as Split
from groschen.records import Verdict as Verdict
from groschen.tasks import verifiers as verifiers
from groschen.tasks.jsonl import read_jsonl as read_jsonl

__version__: str
