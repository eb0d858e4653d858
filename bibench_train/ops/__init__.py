"""Pure tensor functions: sign, straight-through estimators, channel scales."""
