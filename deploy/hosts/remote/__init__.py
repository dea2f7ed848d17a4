"""What the kit runs on a host: file operations and jobs, no packages needed (Python >= 3.7).

A process does operations one after another. A request is one line of JSON, `{"operation": ..., "request": ..., "body":
whether one follows}`; a body goes up to the end of the input, so that its operation is the process's last. The reply is
the line MAGIC, then any number of frames (`{"bytes": n}`, a line, then n raw bytes), then a line of `{"ok": ...}`,
`{"error": "one sentence"}` or, where the operator was silent for LEASE_S, `{"silent": true}`. Paths are absolute. Files
appear under their names only whole: written aside, then renamed. The same package serves this machine and any other,
where it runs from memory (launch.py).

Nothing of it outlives its operator by more than LEASE_S: the operator writes to a live operation (`job`, `hold`) every
few seconds, and a read, a write or a wait for a request that lasts longer ends the process. Jobs alone go on, with a
deadline of their own.
"""
