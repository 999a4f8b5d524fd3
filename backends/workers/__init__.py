"""Native code behind a wall: processes that are asked over pipes, watched, and started again when they die."""
