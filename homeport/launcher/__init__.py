"""The launcher: runs registered apps as programs on this machine, one of each, whichever server process looks after it."""

from homeport.launcher.launcher import Launcher
from homeport.launcher.rows import AppProcess, State
from homeport.launcher.timing import Timing

__all__ = ["AppProcess", "Launcher", "State", "Timing"]
