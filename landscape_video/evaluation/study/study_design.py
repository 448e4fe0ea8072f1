"""Draw the sessions of a user study: which pairs each rater sees, in which order, and on which side."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Shown:
    """One place in a session: a pair, and whether its second clip is on the left."""

    pair: int
    is_swapped: bool


def design_sessions(
    pairs: Sequence[tuple[str, str]], num_sessions: int, pairs_per_session: int, random: Random
) -> list[list[Shown]]:
    """Draw the session of every rater.

    Every pair is shown equally often, give or take one, and equally often on either side. A session shows no pair
    twice, and pairs of systems and prompts as evenly as that allows.

    Args:
        pairs: For each pair, the systems that it compares (one name for both) and its prompt.
        num_sessions: Number of sessions.
        pairs_per_session: Pairs in a session; all of them if there are fewer.
        random: Source of randomness; the same one gives the same sessions.
    """
    times_shown, times_swapped = [0] * len(pairs), [0] * len(pairs)
    sessions = []
    for _ in range(num_sessions):
        systems_here, prompts_here = Counter(), Counter()
        left = list(range(len(pairs)))
        random.shuffle(left)  # the first of equals is chosen
        session = []
        for _ in range(min(pairs_per_session, len(pairs))):
            pair = min(
                left,
                key=lambda index: (times_shown[index], systems_here[pairs[index][0]], prompts_here[pairs[index][1]]),
            )
            left.remove(pair)
            balance = times_shown[pair] - 2 * times_swapped[pair]  # positive if it was swapped less often than not
            is_swapped = balance > 0 or (balance == 0 and random.random() < 0.5)
            times_shown[pair] += 1
            times_swapped[pair] += is_swapped
            systems_here[pairs[pair][0]] += 1
            prompts_here[pairs[pair][1]] += 1
            session.append(Shown(pair, is_swapped))
        random.shuffle(session)
        sessions.append(session)
    return sessions
