"""The one exception a user of the suite should ever meet."""


class NbkitError(ValueError):
    """Something the user gave cannot work.  The message names the file or the field, and the way out."""
