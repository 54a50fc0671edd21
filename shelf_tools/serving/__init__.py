"""``shelf serve``: functions of a folder, each in a sandbox like Lambda's, behind HTTP."""
