"""Who sees which pairs of clips, in which order, and on which side: random, balanced, and the same for a seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Shown:
    """One place in a rater's session: which pair, and whether its second clip stands on the left."""

    pair: int
    is_swapped: bool


def design_sessions(
    pairs: Sequence[tuple[str, str]], num_sessions: int, pairs_per_session: int, random: Random
) -> list[list[Shown]]:
    """Give every rater's session.

    Args:
        pairs: for each pair, which systems it compares (any name of the two together) and its prompt.
        pairs_per_session: all pairs where there are fewer.

    Every pair is shown equally often, give or take one, and equally often on either side. Within a session no pair
    comes twice, and pairs of systems and prompts come as evenly as that allows.
    """
    times_shown, times_swapped = [0] * len(pairs), [0] * len(pairs)
    sessions = []
    for _ in range(num_sessions):
        systems_here: Counter[str] = Counter()
        prompts_here: Counter[str] = Counter()
        left = list(range(len(pairs)))
        random.shuffle(left)  # ties go to whoever comes first
        session = []
        for _ in range(min(pairs_per_session, len(pairs))):
            pair = min(
                left,
                key=lambda index: (times_shown[index], systems_here[pairs[index][0]], prompts_here[pairs[index][1]]),
            )
            left.remove(pair)
            balance = times_shown[pair] - 2 * times_swapped[pair]  # shown straight more often than swapped?
            is_swapped = balance > 0 or (balance == 0 and random.random() < 0.5)
            times_shown[pair] += 1
            times_swapped[pair] += is_swapped
            systems_here[pairs[pair][0]] += 1
            prompts_here[pairs[pair][1]] += 1
            session.append(Shown(pair, is_swapped))
        random.shuffle(session)
        sessions.append(session)
    return sessions
