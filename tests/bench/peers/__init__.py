"""What is compared: Homeport with bench operations added to its contract, FastAPI doing the same checks, Starlette doing none."""
