"""Reading and writing runs: the only package that knows pyarrow, which it imports when first used.

::

    NAME.run/
      run.json                               once, before the first request
      writers/WRITER.json                    replaced atomically: clock series, self-audit, state
      requests/part-WRITER-000001.parquet    finished attempts
      requests/open-WRITER.parquet           attempts in flight, replaced atomically
      evidence/part-WRITER-000001.parquet    what servers and profilers stated

``schema`` says what the columns are, ``writer`` makes runs, ``run`` reads them.

**What survives.** Every file appears whole or not at all: on local disks through a temporary
dot-file and a rename, on object stores through one upload. A killed process loses nothing that was
written, because the kernel holds it. Nothing is forced to the platter (no fsync: it would load
the disk of the machine that is being measured), so a power cut may take the files of the last
half minute or leave some of them truncated; those are named and skipped, the others are read.
"""
