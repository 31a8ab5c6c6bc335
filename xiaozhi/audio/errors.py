"""What can be wrong with sound that comes from elsewhere."""


class DecodeError(Exception):
    """The bytes are not the sound they should be; one line."""


class NoSound(DecodeError):
    """The stream is in order and holds nothing."""
