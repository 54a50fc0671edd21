"""A requirement with a version and one without; the decorator stands without an import."""


@requirements({"requests": "2.32.3", "logzero": ""})  # noqa: F821
def my_function(input_value: str):
    import logzero
    import requests

    logzero.logger.info("requests %s", requests.__version__)
    return input_value
