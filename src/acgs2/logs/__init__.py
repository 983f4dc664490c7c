"""Logs of our processes: one JSON object a line, written by `write`, read again for people by `read`.

A line has `timestamp`, `level`, `event` (a stable name), `logger`, `process`, `region` where there is one,
and the fields of the event. Nothing that a caller sent is ever among them.
"""
