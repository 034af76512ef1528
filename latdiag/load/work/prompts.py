"""Prompts of a wanted length, no two alike from their first tokens on.

A prompt that repeats is answered from the prefix cache and measures the cache. So prompts are
drawn from (seed, index): 8 bits a word or 10 a token, which makes two prompts of a run part within
their first tokens, long before a block of any cache is full.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from latdiag.load.work.draws import octets
from latdiag.model.errors import LocalFault, UsageFault

_WORDS = """
    able about action activity after age air all also any area arm art ask back bad be because
    before between big book both building business but call can car case center change city
    class college come community company control cost could country couple data day decision
    development difference director do doctor door down during each early education effect
    effort end even event every experience eye face fact family father feel few field figure
    find first foot force form friend from game get give go good government great ground group
    had hand has have head health heart here high history home hour house how idea image
    important industry information interest issue job just kind know land large last law
    leader leave level life light line little long look lot love make market matter member
    mind minute moment money month more morning mother movie music name nation need new news
    next night north now number office official old only other others out own paper parent
    part people person phone picture piece place plan player point policy position power
    practice president price problem product program project public question rate reason
    record relationship report research result right road role room same say school season
    second see seem sense service show side site situation small so society son space star
    state step still story street student study support system table take teacher team tell
    test then there thing think time too top town try up use value very view voice wall want
    water way week well word work world year young
"""
#: 256 words, so that a byte picks one. Each with its space is one token to GPT-2, cl100k, o200k,
#: Llama 2 and Llama 3, and none can be read as anything that a content filter would mind.
WORDS = tuple(_WORDS.split())

#: Ids that nearly every vocabulary has and none uses for control: those sit below 1000 (Mistral's
#: newer ones) or at the very end.
TOKEN_IDS = range(1000, 2000)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a server counts our text: tokens = overhead + words / words_per_token.

    ``overhead``: tokens that its chat template and markers add to each prompt.
    """

    words_per_token: float = 1.0
    overhead: float = 0.0

    def words(self, tokens: int) -> int:
        """Words that make a prompt of ``tokens`` tokens; at least 1."""
        return max(1, round((tokens - self.overhead) * self.words_per_token))


def calibrate(
    points: Sequence[tuple[int, int]], words_per_token: float | None = None
) -> Calibration | None:
    """The line through ``points`` (words sent, at least 1; prompt tokens the server counted).

    Least squares weighted with 1 / words, because a text's count varies as the sum of its words'
    counts does; no overhead below 0. Add the points of later replies to refine it. With one
    length of text only, or with ``words_per_token`` given (a known tokenizer), just the overhead
    is fitted. None where the counts cannot be true: they do not grow with the text.
    """
    if not points:
        return None
    weights = [1 / words for words, _ in points]
    n = sum(weights)
    mean_words = len(points) / n
    mean_tokens = sum(g * t for g, (_, t) in zip(weights, points, strict=True)) / n
    if words_per_token is None and len({words for words, _ in points}) > 1:
        weighed = list(zip(weights, points, strict=True))
        spread = sum(g * (w - mean_words) ** 2 for g, (w, _) in weighed)
        shared = sum(g * (w - mean_words) * (t - mean_tokens) for g, (w, t) in weighed)
        if shared <= 0:
            return None
        words_per_token = spread / shared
        if mean_tokens < mean_words / words_per_token:  # an overhead below 0: fit without one
            words_per_token = sum(w for w, _ in points) / sum(t for _, t in points)
    words_per_token = words_per_token or 1.0
    return Calibration(words_per_token, max(0.0, mean_tokens - mean_words / words_per_token))


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Prompts of token ids: exactly as long as asked for."""

    vocab: range = TOKEN_IDS

    def make(self, seed: int, stream: str, index: int, length: int, shared: int) -> list[int]:
        """``length`` ids, of which the first ``shared`` are the same for all."""
        prefix = _ids(self.vocab, seed, "prefix", 0, shared)
        return [*prefix, *_drawn_ids(self.vocab, seed, stream, index, length - shared)]


@dataclass(frozen=True, slots=True)
class Words:
    """Prompts of text. ``table``: 256 words, some of them repeated where fewer are known.
    ``lead``: a word that begins every prompt, where a word without a space before it may count
    differently.
    """

    table: tuple[str, ...] = WORDS
    lead: str = ""

    def make(self, seed: int, stream: str, index: int, length: int, shared: int) -> str:
        """``length`` words, the lead among them; the first ``shared`` are the same for all."""
        led = 1 if self.lead else 0
        shared = max(shared - led, 0)
        drawn = octets(seed, stream, index, length - led - shared)
        parts = [self.lead] if led else []
        if shared:
            parts.append(_text(self.table, seed, shared))
        parts.extend(map(self.table.__getitem__, drawn))
        return " ".join(parts)


def _drawn_ids(vocab: range, seed: int, stream: str, index: int, n: int) -> list[int]:
    low, span = vocab.start, len(vocab)
    drawn = struct.unpack(f"<{n}I", octets(seed, stream, index, 4 * n))
    return [low + (x * span >> 32) for x in drawn]


@lru_cache(maxsize=8)
def _ids(vocab: range, seed: int, stream: str, index: int, n: int) -> tuple[int, ...]:
    return tuple(_drawn_ids(vocab, seed, stream, index, n))


@lru_cache(maxsize=8)
def _text(table: tuple[str, ...], seed: int, n: int) -> str:
    return " ".join(map(table.__getitem__, octets(seed, "prefix", 0, n)))


#: Fewer words than these would make prompts that share too much.
_FEWEST_WORDS = 32

Count = Callable[[str], int]


def tokenizer_words(path: Path) -> Words:
    """The words that are one token each to the tokenizer in the file ``path``.

    A text of such words grows by one token with each, so a wanted length needs no search.
    UsageFault where the file is no tokenizer, the package to read it is missing, or it knows too
    few of our words.
    """
    return words_of_one_token(_tokenizer_count(path), path.name)


def words_of_one_token(count: Count, name: str) -> Words:
    """The words of one token to ``count``, proved on texts made of them."""
    lead = WORDS[0]
    held = count(lead)
    kept = [word for word in WORDS if count(f"{lead} {word}") == held + 1]
    if len(kept) >= _FEWEST_WORDS:
        words = Words(tuple(kept[i % len(kept)] for i in range(len(WORDS))), lead)
        texts = ((n, words.make(n, "proof", n, n, 0)) for n in (1, 2, 17, 256, 1000))
        if all(count(text) == held + n - 1 for n, text in texts):
            return words
    raise UsageFault(
        f"{name} splits plain words so that no text of an exact length can be made",
        "leave --tokenizer out: lengths are then calibrated on the server's own counts",
    )


def _tokenizer_count(path: Path) -> Count:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageFault(
            "--tokenizer needs the package 'tokenizers', which is not installed",
            "pip install 'latdiag[tokenizer]', or leave --tokenizer out",
        ) from None
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        text = file.read_text("utf-8")
    except PermissionError:
        raise LocalFault(f"{file} may not be read", "check its permissions") from None
    except (OSError, ValueError):
        raise UsageFault(f"{file} cannot be read", "give the path of a tokenizer.json") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception:  # the package raises nothing narrower
        raise UsageFault(f"{file} is not a tokenizer", "give a tokenizer.json") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
