"""Who has to wait after a 429: all clients of the instance, or one API key."""

from collections import Counter

from kpi_pipeline.bison.protocols import Pacing


class RateLimits:
    """Tells a limit of the instance from one of a single API key.

    Both answer 429 alike. So the first one holds back everybody; but if others were answered
    between two 429s of one API key, the limit is that key's, and nobody else waits for it again.
    """

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._answered: Counter[str] = Counter()
        self._others_at_429: dict[str, int] = {}

    def answered(self, holder: str) -> None:
        """Note that a call with the API key of `holder` was answered."""
        self._answered[holder] += 1
        self._others_at_429.pop(holder, None)

    async def limited(self, holder: str, seconds: float) -> float:
        """Note a 429; push everybody back, or return the seconds that `holder` waits alone."""
        others = self._answered.total() - self._answered[holder]
        before = self._others_at_429.get(holder)
        self._others_at_429[holder] = others
        if before is not None and others > before:
            return seconds
        await self._pacing.push_back(seconds)
        return 0.0
