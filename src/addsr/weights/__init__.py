"""Files of weights: read without running code, put into networks only where every key and shape fits, and their names."""
