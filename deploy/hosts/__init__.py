"""The machines of a job: how the kit reaches them, trusts them, moves files and runs programs there."""
