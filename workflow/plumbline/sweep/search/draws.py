"""Draws that depend on nothing but the seed and the point's number: of random and qmc searches."""

import hashlib
from collections.abc import Iterator

from plumbline.sweep.search.settings import SearchSettings
from plumbline.sweep.trial.command import Value

Place = dict[str, float]


def draws(search: SearchSettings) -> list[dict[str, Value]]:
    """The points of a random or qmc search, in order. Point k is the same however many are asked for."""
    places = _random(search) if search.sampler == "random" else _sobol(search)
    return [{name: of.at(place[name]) for name, of in search.space.items()} for place in places]


def _random(search: SearchSettings) -> Iterator[Place]:
    """Independent uniform numbers: hashes of the seed, the point's number and the parameter.

    So a parameter that is added leaves the draws of the others as they are, and no library's stream has to stay.
    """
    for number in range(search.trials):
        yield {name: _uniform(f"{search.seed}/{number}/{name}") for name in search.space}


def _uniform(text: str) -> float:
    """A number in [0, 1) of 53 bits, as Python's random() makes them."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 11) / 2**53


def _sobol(search: SearchSettings) -> Iterator[Place]:
    """A scrambled Sobol' sequence (Owen 1998, Journal of Complexity 14), parameters in the order of the alphabet."""
    from scipy.stats.qmc import Sobol  # takes half a second to import

    names = sorted(search.space)
    sequence = Sobol(len(names), scramble=True, rng=search.seed)
    for row in sequence.random_base2((search.trials - 1).bit_length())[: search.trials]:
        yield dict(zip(names, row.tolist(), strict=True))
