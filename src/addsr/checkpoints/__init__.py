"""Models' folders, published and ours: their layouts, where their parts lie, their networks, hashes and downloads."""
