"""A sandbox like that of AWS Lambda, and the API that a runtime in it speaks with."""
