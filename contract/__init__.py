"""What the server is checked with from outside: stand-ins for the services it talks to, and the contract run."""
