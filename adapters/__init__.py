"""The outside world, one module or package per technology. Nothing here knows a surface or a rule of the domain."""
