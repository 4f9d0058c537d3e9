"""Speed and size against peers that do the same work, as ratios measured in one run: ``make bench``, ``make bench ROW=ping``."""
