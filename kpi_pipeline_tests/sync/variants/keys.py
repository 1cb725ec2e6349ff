from kpi_pipeline_tests.sync.support import WHO_AM_I
from kpi_pipeline_tests.sync.variants.cases import (
    CORRECT_THE_CSV,
    SET_INACTIVE,
    Case,
    deleted_workspace,
    given_anew,
    key_of_another,
)

CASES = (
    Case(
        "a new key was copied from another workspace",
        (given_anew, key_of_another),
        (
            f"{WHO_AM_I} shows that the key belongs to workspace {{other}} (",
            "), not to {own}",
            CORRECT_THE_CSV,
        ),
    ),
    Case(
        "the workspace of a client with a key was deleted",
        (deleted_workspace,),
        ("answered 404 (record_not_found)", SET_INACTIVE),
    ),
    Case(
        "the workspace of a client without a key was deleted",
        (deleted_workspace,),
        ("switch-workspace answered 404 (record_not_found)", SET_INACTIVE),
        whose="keyless",
    ),
)
