"""Jobs: whatever outlives a request, so that a crash loses nothing. One queue, one table, for every kind of work."""

from homeport.jobs.attempt import JobContext, Run, Timing
from homeport.jobs.jobs import Job, Jobs

__all__ = ["Job", "JobContext", "Jobs", "Run", "Timing"]
