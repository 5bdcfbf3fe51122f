"""Published checkpoints: reading them safely, their layouts, and turning them into one folder of ours."""
