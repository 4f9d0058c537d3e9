"""How much may be spoken at once in this process."""

from homeport.errors import TooManyRequests

MAX_REQUESTS = 64
MAX_CHARACTERS = 100_000  # some two hours of speech: as samples 300 MB, and half a minute of work for the voices of this machine
RETRY_AFTER_S = 5


class Places:
    """What is being spoken, in requests and in characters that they still have to speak."""

    def __init__(self) -> None:
        self._requests = 0
        self._characters = 0

    def take(self, characters: int) -> "Place":
        """A place for a request. Raises TooManyRequests when there is none."""
        if self._requests >= MAX_REQUESTS or (self._requests and self._characters + characters > MAX_CHARACTERS):
            message = f"Too many texts are being spoken. Try again in {RETRY_AFTER_S} s."
            raise TooManyRequests(message, headers={"Retry-After": str(RETRY_AFTER_S)})
        return Place(self, characters)

    def add(self, requests: int, characters: int) -> None:
        """Count what has come, or with a minus sign what has gone."""
        self._requests += requests
        self._characters += characters


class Place:
    """The place of one request."""

    def __init__(self, places: Places, characters: int) -> None:
        self._places: Places | None = places
        self._characters = characters
        places.add(1, characters)

    def have_sent(self, characters: int) -> None:
        """So many characters have been spoken and are off our hands."""
        if self._places is not None:
            self._places.add(0, -characters)
            self._characters -= characters

    def leave(self) -> None:
        """Give the place up; the second time nothing happens."""
        places, self._places = self._places, None
        if places is not None:
            places.add(-1, -self._characters)
