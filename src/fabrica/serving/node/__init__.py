"""A DICOM node beside an archive: series in, derived series back, nothing lost on the way.

Objects become files as they arrive (`receive`, `arriving`), files become series and series become jobs in a database
(`queue`, `intake`), a child process applies models to them (`work`), and what they make goes back (`send`). `node` runs
it all over one folder (`store`).
"""
