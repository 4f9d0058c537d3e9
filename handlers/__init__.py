"""Handlers: one folder a surface, one module a resource, one function an operation. They parse nothing and decide nothing."""
