"""Who owns which block of the key/value cache, and which blocks hold a prefix that somebody may want again.

Counts only: knows no tensor. A full block is found again by a digest over (weights version, all tokens up to
its end), so a weight update makes every older prefix unreachable. Free blocks keep their content until they
are needed, the oldest first. Prefix caching by hashed blocks: vLLM, arXiv 2309.06180.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from groschen.model.kvcache import KEYS_PER_BLOCK

Digest = bytes


class BlockPool:
    """`num_blocks` blocks with their numbers of owners."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._owners = [0] * num_blocks
        self._empty = list(range(num_blocks - 1, -1, -1))  # never written, or forgotten
        self._kept: OrderedDict[int, None] = OrderedDict()  # no owner, content still reachable; oldest first
        self._digest_of: dict[int, Digest] = {}
        self._block_of: dict[Digest, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that can be taken now, remembered ones included."""
        return len(self._empty) + len(self._kept)

    def take(self) -> int | None:
        """A block with one owner and no remembered content, or None if all are owned."""
        if self._empty:
            block = self._empty.pop()
        elif self._kept:
            block, _ = self._kept.popitem(last=False)
            del self._block_of[self._digest_of.pop(block)]
        else:
            return None
        self._owners[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more owner."""
        if self._owners[block] == 0:
            del self._kept[block]
        self._owners[block] += 1

    def release(self, block: int) -> None:
        """One owner less; without an owner, a remembered block stays reachable until it is taken."""
        assert self._owners[block] > 0, "a block was released twice"
        self._owners[block] -= 1
        if self._owners[block] == 0:
            if block in self._digest_of:
                self._kept[block] = None
            else:
                self._empty.append(block)

    def remember(self, block: int, digest: Digest) -> None:
        """Make a full block findable. The first block with a digest stays the one that is found."""
        if digest not in self._block_of and block not in self._digest_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest

    def find(self, digest: Digest) -> int | None:
        """The block with this content, if it is still there. The caller shares it."""
        return self._block_of.get(digest)

    def release_all(self) -> None:
        """Nobody owns a block any more; what is remembered stays reachable. Right even where another call was
        cut off in the middle.
        """
        self._owners = [0] * self.num_blocks
        self._block_of = {digest: block for block, digest in self._digest_of.items()}
        for block in reversed(self._digest_of):  # the end of a text first: without its front it is of no use
            self._kept.setdefault(block)
        self._empty = [block for block in reversed(range(self.num_blocks)) if block not in self._digest_of]

    def forget_all(self) -> None:
        """No content can be found any more: the weights have changed."""
        self._empty.extend(self._kept)
        self._kept.clear()
        self._digest_of.clear()
        self._block_of.clear()

    def check(self) -> None:
        """The pool's own invariants; cheap enough for tests and for an idle engine."""
        owned = sum(1 for owners in self._owners if owners)
        assert owned + self.num_free == self.num_blocks, (owned, self.num_free, self.num_blocks)
        assert len(set(self._empty) | set(self._kept)) == self.num_free
        assert all(self._digest_of[block] == digest for digest, block in self._block_of.items())


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold this many positions."""
    return -(-num_tokens // KEYS_PER_BLOCK)


def digests(token_ids: Sequence[int], salt: bytes) -> list[Digest]:
    """One digest for each full block of a sequence, each over everything before it.

    salt: names the weights.
    """
    found, digest = [], salt
    for start in range(0, len(token_ids) - KEYS_PER_BLOCK + 1, KEYS_PER_BLOCK):
        words = array("q", token_ids[start : start + KEYS_PER_BLOCK]).tobytes()
        digest = hashlib.blake2b(digest + words, digest_size=16).digest()
        found.append(digest)
    return found
