"""Everything that knows HTTP: the application, its middleware, binding of handlers, reading of bodies and rendering of answers.

Only ``connexion_app`` imports Connexion, so that replacing it is a bounded job. Nothing outside this package imports Starlette or
Connexion.
"""
