"""Pictures without networks: files, resampling, tile geometry, colour fix."""
