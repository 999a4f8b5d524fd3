"""The gateway: configuration, routing, the life of models, and the HTTP in front of them."""
