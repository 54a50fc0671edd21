"""What is imported and not declared is not there, whatever the machine has."""

from cloudimport import requirements


@requirements({"six": ""})
def my_function(input_value: str):
    import requests

    return requests.__version__, input_value
