"""A number of requests that a sync may send."""


class Budget:
    """What is left of it; at first nothing."""

    def __init__(self, most: int) -> None:
        """`most` is what `refill` sets."""
        self._most = most
        self.left = 0

    def refill(self) -> None:
        """Begin a sync, or another round of probes."""
        self.left = self._most

    def take(self, count: int) -> bool:
        """Take exactly `count` if there are as many; return whether there are."""
        if self.left < count:
            return False
        self.left -= count
        return True

    def take_some(self, count: int) -> int:
        """Take at most `count`; return how many."""
        taken = min(count, self.left)
        self.left -= taken
        return taken

    def give_back(self, count: int) -> None:
        """Give back what was taken and not used."""
        self.left += count
