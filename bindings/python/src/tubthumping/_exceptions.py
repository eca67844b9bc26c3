"""What a checkpoint raises. The names are those that Java has."""


class TubthumpingError(Exception):
    """A checkpoint did not end well; `failures` holds everything that failed, in the order of the hooks."""

    def __init__(self, failures):
        self.failures = list(failures)
        super().__init__("; ".join(str(failure) for failure in self.failures))


class CheckpointException(TubthumpingError):
    """There is no image, and the program goes on."""


class RestoreException(TubthumpingError):
    """There is an image; hooks failed afterwards."""
