class KpiError(Exception):
    """Something the person at the keyboard can mend.

    The message is for that person: one or two sentences that say what is wrong, where, and what to
    do next. Commands print it without a stack trace and exit with 1.
    """
