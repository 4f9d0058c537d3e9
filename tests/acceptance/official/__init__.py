"""The official clients, unmodified: every method of every release that Homeport is made for."""
