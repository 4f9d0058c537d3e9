"""Jobs: whatever outlives a request, so that a crash loses nothing. One queue, one table, for every kind of work."""

from homeport.jobs.jobs import Job, Jobs
from homeport.jobs.worker import JobContext, Run, Timing

__all__ = ["Job", "JobContext", "Jobs", "Run", "Timing"]
