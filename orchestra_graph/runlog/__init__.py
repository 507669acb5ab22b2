"""The run log: one JSON line a run, written by any number of processes, read without trust in any line.

`log` writes, `read` reads, `repair` folds runs that never ended, `record` says what a line holds. Below them,
`encoding` turns values into lines, `files` appends and finds lines, `spool` keeps what a run has journalled so far.
"""
