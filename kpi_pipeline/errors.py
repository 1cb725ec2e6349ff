class KpiError(Exception):
    """A user-correctable error; its message says what to do.

    One or two sentences: what is wrong, where, and what to do next. Commands print them without a
    stack trace and exit with 1.
    """
