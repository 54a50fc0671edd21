"""The function of docs/lambda.md. Nothing here knows of a shelf."""

from datetime import timedelta

import humanize


def handler(event, context):
    """Answer with a duration as people say it."""
    return {"text": humanize.precisedelta(timedelta(seconds=event["seconds"]))}
