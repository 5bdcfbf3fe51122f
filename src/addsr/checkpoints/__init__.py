"""Published checkpoints: their layouts, where their parts lie, and how they are downloaded."""
