"""Named arguments, of which one has to be given."""

import cloudimport


@cloudimport.requirements({"requests": ""})
def my_function(input_value: str, arg1: str | None = None, *, arg2: str):
    import requests

    assert requests.get
    return [input_value, arg1, arg2]
